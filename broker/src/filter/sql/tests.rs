//! What expressions mean, as the stock broker takes them.

use protocol::properties;

use super::*;

const PROPERTIES: [(&str, &str); 6] =
    [("a", "5"), ("b", "text"), ("c", "2.5"), ("t", "TRUE"), ("TAGS", "x"), ("n", "-7")];

fn wants(expression: &str) -> bool {
    let properties = properties::encode(PROPERTIES);
    match Sql::parse(expression) {
        Ok(sql) => sql.wants(&properties),
        Err(error) => panic!("{expression}: {error}"),
    }
}

#[test]
fn expressions_hold_or_do_not() {
    for (expression, holds) in [
        ("a = 5", true),
        ("a = '5'", true),
        ("a = 5.0", true),
        ("a <> 6", true),
        ("a > 4 AND a < 6", true),
        ("a >= 5 and a <= 5", true),
        ("a > 5 OR b = 'text'", true),
        ("a BETWEEN 5 AND 5", true),
        ("a NOT BETWEEN 1 AND 4", true),
        ("a NOT BETWEEN 1 AND 5", false),
        ("c > 2", true),
        ("c < a", true),
        ("n < -6 AND n > - 8", true),
        ("n = -7L", true),
        ("b IN ('text', 'other')", true),
        ("b NOT IN ('text')", false),
        ("missing IN ('x')", false),
        ("missing NOT IN ('x')", false),
        ("b CONTAINS 'ex'", true),
        ("b NOT CONTAINS 'ex'", false),
        ("missing NOT CONTAINS 'ex'", false),
        ("b STARTSWITH 'te' AND b ENDSWITH 'xt'", true),
        ("b NOT STARTSWITH 'x' AND b NOT ENDSWITH 'x'", true),
        ("missing IS NULL AND a IS NOT NULL", true),
        ("a IS NULL", false),
        ("t = TRUE", true),
        ("t", false),
        ("TRUE", true),
        ("FALSE OR TRUE", true),
        ("NULL", false),
        ("NOT (a > 6)", true),
        ("TAGS = 'x'", true),
        ("a > 1 -- and no more\n", true),
        ("/* all * of ** it */ a = 5", true),
        ("b = 'it''s'", false),
        ("((a)) = 5", true),
        ("A = 5", false),
    ] {
        assert_eq!(wants(expression), holds, "{expression}");
    }
}

#[test]
fn what_is_missing_is_unknown_and_unknown_is_not_true() {
    for (expression, holds) in [
        ("missing = 1", false),
        ("NOT (missing = 1)", false),
        ("missing <> 1", false),
        ("missing > 1 OR a = 5", true),
        ("missing > 1 AND a = 5", false),
        ("NOT (missing > 1 AND a = 6)", true),
        ("missing = other", true),
        ("a = missing", false),
        ("- missing < 0", false),
    ] {
        assert_eq!(wants(expression), holds, "{expression}");
    }
}

#[test]
fn what_has_no_order_makes_the_whole_expression_not_true() {
    for expression in ["b > 1", "b > a", "NOT (b > 1)", "b > 1 OR a = 5", "b = 1", "b <> 1"] {
        assert!(!wants(expression), "{expression}");
    }
    assert!(wants("a = 5 OR b > 1"), "what decides comes first");
}

#[test]
fn what_means_nothing_is_refused_with_its_place() {
    let refused = [
        ("", 0),
        ("a >", 3),
        ("a = ", 4),
        ("a = 'x", 4),
        ("a != 1", 2),
        ("a > 'x'", 7),
        ("a > TRUE", 8),
        ("a = NULL", 8),
        ("TRUE = 1", 8),
        ("5", 1),
        ("'x' AND a = 1", 4),
        ("a = 1 b = 2", 6),
        ("(a = 1", 6),
        ("a = 1)", 5),
        ("a IN (1)", 6),
        ("a IN ()", 6),
        ("5 IN ('x')", 5),
        ("a BETWEEN 5 AND 1", 17),
        ("a BETWEEN 5", 11),
        ("a IS 5", 5),
        ("a = 007", 4),
        ("a = 99999999999999999999", 4),
        ("a = .", 4),
        ("/* a = 1", 0),
        ("ä = 1", 0),
        ("a NOT = 1", 2),
        ("a CONTAINS b", 11),
    ];
    let places = refused
        .map(|(expression, _)| (expression, Sql::parse(expression).expect_err(expression).at));
    assert_eq!(places, refused);
}

#[test]
fn expressions_are_as_long_and_deep_as_the_limits_and_no_more() {
    let nested = |depth: usize| format!("{}a = 1{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Sql::parse(&nested(DEPTH_MAX - 1)).is_ok());
    assert!(Sql::parse(&nested(DEPTH_MAX)).is_err());
    assert!(Sql::parse(&nested(EXPRESSION_BYTES_MAX / 2 - 3)).is_err());
    assert!(Sql::parse(&format!("{}a = 1", "NOT ".repeat(4000))).is_err());
    let many = vec!["a = 5"; EXPRESSION_BYTES_MAX / 10 - 1].join(" AND ");
    assert!(wants(&many));
    assert!(Sql::parse(&"a".repeat(EXPRESSION_BYTES_MAX + 1)).is_err());
    assert!(wants("a = 5 = TRUE") && Sql::parse("a = 5 = TRUE = TRUE = TRUE").is_err());
    let worst = format!("{}a{}", "NOT (".repeat(31), " = TRUE = TRUE IS NULL)".repeat(31));
    assert!(Sql::parse(&worst).is_err());
    let worst = format!("{}a{}", "NOT (".repeat(31), " = TRUE IS NULL)".repeat(31));
    Sql::parse(&worst).expect("two are allowed").wants(b"");
}
