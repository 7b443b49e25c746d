/** What a case demands: each demand that does not hold ends the case with a sentence. */
import java.util.Objects;
import java.util.concurrent.Callable;

final class Check {
    private Check() {}

    interface Action {
        void run() throws Exception;
    }

    static void that(boolean holds, String sentence, Object... args) {
        if (!holds) {
            throw new AssertionError(String.format(sentence, args));
        }
    }

    static void equal(Object expected, Object actual, String what) {
        that(Objects.equals(expected, actual), "%s: expected %s, got %s", what, brief(expected), brief(actual));
    }

    /** Waits until the condition holds; an exception counts as "not yet". */
    static void eventually(int seconds, String what, Callable<Boolean> condition) throws InterruptedException {
        long deadline = System.nanoTime() + seconds * 1_000_000_000L;
        Exception last = null;
        while (System.nanoTime() < deadline) {
            try {
                if (condition.call()) {
                    return;
                }
                last = null;
            } catch (InterruptedException interrupted) {
                throw interrupted;
            } catch (Exception notYet) {
                last = notYet;
            }
            Thread.sleep(20);
        }
        throw new AssertionError("not within " + seconds + " s: " + what + (last == null ? "" : " (" + last + ")"));
    }

    /** Runs the action, which must throw this kind of exception. */
    static <E extends Exception> E refused(Class<E> kind, String what, Action action) {
        try {
            action.run();
        } catch (Exception thrown) {
            that(kind.isInstance(thrown), "%s: expected %s, got %s", what, kind.getSimpleName(), thrown);
            return kind.cast(thrown);
        }
        throw new AssertionError(what + ": was accepted");
    }

    private static String brief(Object value) {
        String text = String.valueOf(value);
        return text.length() <= 300 ? text : text.substring(0, 300) + "…";
    }
}
