/** Runs the official Java 5.x client through its paces against whatever serves at the given endpoints. */
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

public final class Suite {
    private Suite() {}

    interface Body {
        void run(Stage stage) throws Exception;
    }

    public static void main(String[] args) throws Exception {
        Flags flags = Flags.parse(args);
        Map<String, Body> cases = new LinkedHashMap<>();
        // The longest waits come first, so that the short cases run beside them.
        TimeCases.addTo(cases);
        SimpleCases.addTo(cases);
        PushCases.addTo(cases);
        SendCases.addTo(cases);
        if (flags.has("list")) {
            cases.keySet().forEach(System.out::println);
            return;
        }
        if (flags.has("only")) {
            Set<String> only = Set.of(flags.get("only", "").split(","));
            cases.keySet().retainAll(only);
            Check.equal(only.size(), cases.size(), "cases that --only names");
        }
        System.exit(run(cases, flags) ? 0 : 1);
    }

    private static boolean run(Map<String, Body> cases, Flags flags) throws Exception {
        AtomicInteger failed = new AtomicInteger();
        ExecutorService pool = Executors.newFixedThreadPool(Integer.parseInt(flags.get("jobs", "16")));
        cases.forEach((name, body) -> pool.execute(() -> {
            long start = System.nanoTime();
            String problem = attempt(new Stage(name, flags), body);
            double seconds = (System.nanoTime() - start) / 1e9;
            if (problem == null) {
                System.out.println(String.format(Locale.ROOT, "PASS %s %.1fs", name, seconds));
            } else {
                failed.incrementAndGet();
                System.out.println(String.format(Locale.ROOT, "FAIL %s: %s, after %.1fs", name, problem, seconds));
            }
        }));
        pool.shutdown();
        Check.that(pool.awaitTermination(10, TimeUnit.MINUTES), "the suite ends");
        System.out.println((cases.size() - failed.get()) + " passed, " + failed.get() + " failed");
        return failed.get() == 0;
    }

    /** The reason of the failure on one line, or null. */
    private static String attempt(Stage stage, Body body) {
        try (stage) {
            body.run(stage);
            return null;
        } catch (Throwable thrown) {
            List<StackTraceElement> trace = List.of(thrown.getStackTrace());
            String where = trace.stream().filter(element -> element.getClassName().endsWith("Cases")).findFirst()
                .map(element -> " (" + element.getFileName() + ":" + element.getLineNumber() + ")").orElse("");
            String sentence = thrown instanceof AssertionError ? thrown.getMessage() : thrown.toString();
            return String.valueOf(sentence).replace('\n', ' ') + where;
        }
    }
}
