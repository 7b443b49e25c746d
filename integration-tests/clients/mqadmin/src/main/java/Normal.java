import java.util.LinkedHashMap;
import java.util.Map;
import java.util.regex.Pattern;

/** Takes out of a line what differs from run to run: times, ids, ports of clients. */
final class Normal {
    private static final Map<Pattern, String> RULES = new LinkedHashMap<>();

    static {
        rule("^RocketMQLog:.*|^WARNING:.*|^SLF4J:.*|^\\s+at .*|^\\s*\\.\\.\\. \\d+ more", "");
        rule("\\d{4}-\\d{2}-\\d{2}[ T]\\d{2}:\\d{2}:\\d{2}([.,:]\\d{1,3})?", "<time>");
        rule("\\d{4}-\\d{2}-\\d{2}#\\d{2}:\\d{2}:\\d{2}(:\\d+)?", "<time>");
        rule("\\b1[6-9]\\d{11}\\b", "<ms>");
        rule("\\b20\\d{12}(\\d{3})?\\b", "<time>");
        // Our log holds the broker's state too, so that messages lie elsewhere in it.
        rule("(CommitLog Offset:\\s*|commitLogOffset=|physicOffset=|<uid:\\d+>@)\\d+", "$1<position>");
        rule("\\b([0-9A-F]{56}|[0-9A-F]{32})\\b", "<id>");
        rule("(spentTimeMills=|Cost: ?|cost: ?|cost=)\\d+", "$1<n>");
        rule("/?\\b(127\\.0\\.0\\.1|10\\.\\d+\\.\\d+\\.\\d+|172\\.\\d+\\.\\d+\\.\\d+|192\\.168\\.\\d+\\.\\d+):\\d+", "<client>");
        rule("@[0-9a-f]{5,8}\\b", "@<hash>");
        rule("\\b\\d+#\\d{6,}", "<pid>");
        rule("\\b\\d+ ?ms\\b", "<n>ms");
        rule("<time> ?[+-]\\d{4}", "<time>");
        rule("(TPS: *)[0-9.]+", "$1<rate>");
        rule("\\s+", " ");
    }

    private Normal() {
    }

    private static void rule(String pattern, String with) {
        RULES.put(Pattern.compile(pattern), with);
    }

    static String line(String line) {
        String text = line;
        for (Map.Entry<Pattern, String> rule : RULES.entrySet()) {
            text = rule.getKey().matcher(text).replaceAll(rule.getValue());
        }
        return text.strip();
    }
}
