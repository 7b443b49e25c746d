import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.io.PrintStream;
import java.lang.reflect.Field;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.tools.command.MQAdminStartup;

/**
 * Runs the same mqadmin commands against two clusters with the same history, and compares what they print, line by
 * line; the order of lines does not count, since mqadmin prints hash maps.
 */
public final class Compare {
    private static final PrintStream OUT = System.out;
    private static final long COMMAND_SECONDS_MAX = 60;

    private Compare() {
    }

    @SuppressWarnings("removal")
    public static void main(String[] args) throws Exception {
        if (args.length < 3) {
            OUT.println("Compare FOLDER STOCK-NAMESRV OUR-NAMESRV [--show] [--only COMMAND,…]");
            System.exit(2);
        }
        boolean show = List.of(args).contains("--show");
        int only = List.of(args).indexOf("--only");
        List<String> wanted = only < 0 ? List.of() : List.of(args[only + 1].split(","));
        // A command that does not like its options ends the process.
        System.setSecurityManager(new NoExit());
        Path folder = Path.of(args[0]);
        Accepted accepted = new Accepted(folder.resolve("accepted.tsv"));
        Cluster stock = new Cluster("stock", args[1]);
        Cluster ours = new Cluster("ours", args[2]);
        int equal = 0;
        int close = 0;
        List<String> failed = new ArrayList<>();
        for (String line : Files.readAllLines(folder.resolve("commands.txt"))) {
            if (line.isBlank() || line.startsWith("#")) {
                continue;
            }
            if (line.startsWith("!")) {
                act(line.substring(1), stock, ours);
                continue;
            }
            String command = line.split(" ")[0];
            if (!wanted.isEmpty() && !wanted.contains(command) && !command.startsWith("update")) {
                continue;
            }
            long start = System.nanoTime();
            List<String> left = stock.normal(run(stock.command(line)));
            List<String> right = ours.normal(run(ours.command(line)));
            List<String> onlyLeft = minus(left, right);
            List<String> onlyRight = minus(right, left);
            boolean same = onlyLeft.isEmpty() && onlyRight.isEmpty();
            onlyLeft.removeIf(text -> accepted.is(command, "stock", text));
            onlyRight.removeIf(text -> accepted.is(command, "ours", text));
            boolean passed = onlyLeft.isEmpty() && onlyRight.isEmpty();
            OUT.println((passed ? "PASS " : "FAIL ") + line + (passed && !same ? "   (accepted differences)" : "")
                + slow(System.nanoTime() - start));
            onlyLeft.forEach(text -> OUT.println("    stock: " + text));
            onlyRight.forEach(text -> OUT.println("    ours:  " + text));
            if (show) {
                right.forEach(text -> OUT.println("      | " + text));
            }
            if (!passed) {
                failed.add(line);
            } else if (same) {
                equal++;
            } else {
                close++;
            }
        }
        stock.leave();
        ours.leave();
        if (wanted.isEmpty()) {
            accepted.unused().forEach(rule -> OUT.println("note: this accepted difference was not seen: " + rule));
        }
        OUT.println(equal + " equal, " + close + " with accepted differences, " + failed.size() + " differ");
        NoExit.allowed = true;
        System.exit(failed.isEmpty() ? 0 : 1);
    }

    @SuppressWarnings("removal")
    private static final class NoExit extends SecurityManager {
        private static volatile boolean allowed;

        @Override
        public void checkExit(int status) {
            if (!allowed) {
                throw new SecurityException("exit " + status);
            }
        }

        @Override
        public void checkPermission(java.security.Permission permission) {
        }

        @Override
        public void checkPermission(java.security.Permission permission, Object context) {
        }
    }

    private static String slow(long nanos) {
        long seconds = TimeUnit.NANOSECONDS.toSeconds(nanos);
        return seconds < 5 ? "" : "   " + seconds + " s";
    }

    private static void act(String what, Cluster stock, Cluster ours) throws Exception {
        switch (what.split(" ")[0]) {
            case "history" -> {
                stock.history();
                ours.history();
            }
            case "again" -> {
                stock.consumed(2);
                ours.consumed(2);
            }
            case "settle" -> {
                stock.settle();
                ours.settle();
            }
            case "leave" -> {
                stock.leave();
                ours.leave();
            }
            case "wait" -> Thread.sleep(Long.parseLong(what.split(" ")[1]));
            default -> throw new IllegalArgumentException("unknown step: " + what);
        }
    }

    /** What is in `these` more often than in `those`. */
    private static List<String> minus(List<String> these, List<String> those) {
        List<String> rest = new ArrayList<>(these);
        those.forEach(rest::remove);
        return rest;
    }

    private static String run(String[] command) throws Exception {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        PrintStream capture = new PrintStream(bytes, true, StandardCharsets.UTF_8);
        PrintStream err = System.err;
        InputStream in = System.in;
        System.setOut(capture);
        System.setErr(capture);
        System.setIn(InputStream.nullInputStream());
        // Commands keep clients that are ended with them; none may be run twice.
        Field commands = MQAdminStartup.class.getDeclaredField("SUB_COMMANDS");
        commands.setAccessible(true);
        ((List<?>) commands.get(null)).clear();
        CountDownLatch done = new CountDownLatch(1);
        Thread thread = new Thread(() -> {
            try {
                MQAdminStartup.main0(command, null);
            } catch (Throwable failure) {
                failure.printStackTrace(capture);
            }
            done.countDown();
        });
        thread.setDaemon(true);
        thread.start();
        boolean ended = done.await(COMMAND_SECONDS_MAX, TimeUnit.SECONDS);
        thread.interrupt();
        System.setOut(OUT);
        System.setErr(err);
        System.setIn(in);
        return bytes.toString(StandardCharsets.UTF_8) + (ended ? "" : "\n(did not end)");
    }
}
