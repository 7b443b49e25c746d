/** Command-line flags of the form {@code --name value}; a flag without a value is "true". */
import java.util.Map;
import java.util.TreeMap;

record Flags(Map<String, String> values) {
    static Flags parse(String[] args) {
        Map<String, String> values = new TreeMap<>();
        for (int i = 0; i < args.length; i++) {
            if (!args[i].startsWith("--")) {
                throw new IllegalArgumentException("not a flag: " + args[i]);
            }
            boolean hasValue = i + 1 < args.length && !args[i + 1].startsWith("--");
            values.put(args[i].substring(2), hasValue ? args[++i] : "true");
        }
        return new Flags(values);
    }

    boolean has(String name) {
        return values.containsKey(name);
    }

    String get(String name, String otherwise) {
        return values.getOrDefault(name, otherwise);
    }

    String need(String name) {
        if (!has(name)) {
            throw new IllegalArgumentException("--" + name + " is missing");
        }
        return values.get(name);
    }
}
