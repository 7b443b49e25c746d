/** Runs the official Java remoting client through its paces against whatever serves at the given nameserver address. */
import java.lang.reflect.InvocationTargetException;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Set;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.producer.DefaultMQProducer;

public final class Suite {
    private final List<Case> cases = new ArrayList<>();

    interface Body {
        void run(Stage stage) throws Exception;
    }

    private record Case(String name, Body body, boolean onlyNamed) {}

    void add(String name, Body body) {
        cases.add(new Case(name, body, false));
    }

    /** A case that wants a broker with settings of its own. */
    void addWhenNamed(String name, Body body) {
        cases.add(new Case(name, body, true));
    }

    /** The longest waits come first, so that the short cases run beside them. */
    private static Suite all() {
        Suite suite = new Suite();
        TransactionCases.addTo(suite);
        PopCases.addTo(suite);
        RetryCases.addTo(suite);
        ConsumeCases.addTo(suite);
        OrderCases.addTo(suite);
        DelayCases.addTo(suite);
        OffsetCases.addTo(suite);
        PullCases.addTo(suite);
        RequestCases.addTo(suite);
        SendCases.addTo(suite);
        BodyCases.addTo(suite);
        QueryCases.addTo(suite);
        return suite;
    }

    public static void main(String[] args) throws Exception {
        Flags flags = Flags.parse(args);
        Suite suite = all();
        if (flags.has("list")) {
            suite.cases.forEach(each -> System.out.println(each.name));
            return;
        }
        if (flags.has("only")) {
            Set<String> only = Set.of(flags.get("only", "").split(","));
            suite.cases.removeIf(each -> !only.contains(each.name));
            Check.equal(only.size(), suite.cases.size(), "cases that --only names");
        } else {
            suite.cases.removeIf(Case::onlyNamed);
        }
        System.exit(suite.run(flags) ? 0 : 1);
    }

    private boolean run(Flags flags) throws Exception {
        String namesrv = flags.need("namesrv");
        String cluster = flags.get("cluster", "DefaultCluster");
        int jobs = Integer.parseInt(flags.get("jobs", "10"));
        DefaultMQProducer producer = Stage.startProducer(namesrv);
        AtomicInteger failed = new AtomicInteger();
        ExecutorService pool = Executors.newFixedThreadPool(jobs);
        for (Case each : cases) {
            pool.execute(() -> {
                long start = System.nanoTime();
                String problem = attempt(each, namesrv, cluster, producer);
                double seconds = (System.nanoTime() - start) / 1e9;
                if (problem == null) {
                    System.out.println(String.format(Locale.ROOT, "PASS %s %.1fs", each.name, seconds));
                } else {
                    failed.incrementAndGet();
                    System.out.println("FAIL " + each.name + ": " + problem);
                }
            });
        }
        pool.shutdown();
        Check.that(pool.awaitTermination(20, TimeUnit.MINUTES), "the suite ends");
        producer.shutdown();
        System.out.println((cases.size() - failed.get()) + " passed, " + failed.get() + " failed");
        return failed.get() == 0;
    }

    /** The reason of the failure on one line, or null. */
    private static String attempt(Case each, String namesrv, String cluster, DefaultMQProducer producer) {
        try (Stage stage = new Stage(each.name, namesrv, cluster, producer)) {
            each.body.run(stage);
            return null;
        } catch (Throwable thrown) {
            Throwable reason = thrown instanceof InvocationTargetException ? thrown.getCause() : thrown;
            String where = "";
            for (StackTraceElement element : reason.getStackTrace()) {
                if (element.getClassName().endsWith("Cases")) {
                    where = " (" + element.getFileName() + ":" + element.getLineNumber() + ")";
                    break;
                }
            }
            String sentence = reason instanceof AssertionError ? reason.getMessage() : reason.toString();
            return String.valueOf(sentence).replace('\n', ' ') + where;
        }
    }
}
