// Asks the relay for a frame, then does what makes it pass. For every version of the client library.
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.net.Socket;
import java.nio.charset.StandardCharsets;

final class Wish {
    interface Action {
        void run() throws Throwable;
    }

    static final String NAMESERVER = "127.0.0.1:9876";
    static final String BROKER = "127.0.0.1:10911";
    /** Who this process is, for the comment of each file. */
    static final String BY = System.getProperty("by");
    /** Put before every variant, so that client versions do not write over each other. */
    static final String MARK = System.getProperty("mark", "");
    private static Socket control;
    private static BufferedReader answers;

    /** Ends the process with its main thread, whatever threads the client library left behind. */
    static void haltAtTheEnd() {
        Thread main = Thread.currentThread();
        Thread end = new Thread(() -> {
            try {
                main.join();
            } catch (InterruptedException error) {
                Thread.currentThread().interrupt();
            }
            System.out.flush();
            Runtime.getRuntime().halt(0);
        });
        end.setDaemon(true);
        end.start();
    }

    /** Asks for the next request of this code and its answer; options are further fields of `take`. */
    static void take(String name, int code, String variant, String call, String... options) throws Exception {
        StringBuilder line = new StringBuilder("take name=" + name + "\tcode=" + code);
        String full = MARK.isEmpty() ? variant : variant.isEmpty() ? MARK : MARK + "-" + variant;
        if (!full.isEmpty()) line.append("\tvariant=").append(full);
        boolean by = false;
        for (String option : options) {
            line.append('\t').append(option);
            by |= option.startsWith("by=");
        }
        if (!by) line.append("\tby=").append(BY);
        String answer = ask(line.append("\tcall=").append(call).toString());
        if (!answer.equals("ok")) throw new IllegalStateException(answer);
    }

    /** Waits for all that was asked for; prints what did not come. */
    static void await(int seconds) throws Exception {
        String answer = ask("wait " + seconds * 1000);
        if (!answer.equals("done")) System.out.println(BY + " " + MARK + ": " + answer);
    }

    static void record(String name, int code, String variant, String call, Action action, String... options) throws Exception {
        take(name, code, variant, call, options);
        attempt(call, action);
        await(5);
    }

    static void attempt(String call, Action action) {
        try {
            action.run();
        } catch (Throwable error) {
            System.out.println("  " + call + ": " + String.valueOf(error.getMessage()).split("\n")[0] + " (" + error.getClass().getSimpleName() + ")");
        }
    }

    private static synchronized String ask(String line) throws Exception {
        if (control == null) {
            control = new Socket("127.0.0.1", 9999);
            answers = new BufferedReader(new InputStreamReader(control.getInputStream(), StandardCharsets.UTF_8));
        }
        OutputStream out = control.getOutputStream();
        out.write((line + "\n").getBytes(StandardCharsets.UTF_8));
        out.flush();
        return answers.readLine();
    }
}
