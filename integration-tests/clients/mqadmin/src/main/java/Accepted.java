import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Pattern;

/** The differences that are meant to be, each with its reason: `accepted.tsv`. */
final class Accepted {
    private final List<Rule> rules = new ArrayList<>();

    private static final class Rule {
        String command;
        String side;
        Pattern line;
        String reason;
        boolean used;
    }

    Accepted(Path file) throws Exception {
        for (String line : Files.readAllLines(file)) {
            if (line.isBlank() || line.startsWith("#")) {
                continue;
            }
            String[] columns = line.split("\t");
            if (columns.length != 4) {
                throw new IllegalArgumentException("a rule has four columns: " + line);
            }
            Rule rule = new Rule();
            rule.command = columns[0];
            rule.side = columns[1];
            rule.line = Pattern.compile(columns[2]);
            rule.reason = columns[3];
            rules.add(rule);
        }
    }

    /** Whether this line of one side may be without a counterpart. */
    boolean is(String command, String side, String line) {
        for (Rule rule : rules) {
            boolean here = rule.command.equals("*") || rule.command.equals(command);
            if (here && (rule.side.equals("both") || rule.side.equals(side)) && rule.line.matcher(line).matches()) {
                rule.used = true;
                return true;
            }
        }
        return false;
    }

    List<String> unused() {
        List<String> unused = new ArrayList<>();
        for (Rule rule : rules) {
            if (!rule.used) {
                unused.add(rule.command + " " + rule.line + " (" + rule.reason + ")");
            }
        }
        return unused;
    }
}
