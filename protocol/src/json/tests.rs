//! What fastjson forgives is forgiven, what would hurt is refused.

use std::collections::BTreeMap;
use std::fmt::Debug;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use super::*;
use crate::body::{
    ConsumeFromWhere, HeartbeatData, MessageModel, MessageQueue, SubscriptionGroupConfig,
    TopicConfig, TopicStatsTable,
};

/// One field of each kind, none of them with a default that a mistake could hide behind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Sample {
    b: bool,
    d: f64,
    e: MessageModel,
    i: i32,
    ints: Vec<i32>,
    l: i64,
    map: BTreeMap<String, String>,
    numbered: BTreeMap<i32, String>,
    o: Option<i32>,
    s: String,
    texts: Vec<String>,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            b: true,
            d: 7.5,
            e: MessageModel::LiteSelective,
            i: 7,
            ints: Vec::new(),
            l: 7,
            map: BTreeMap::new(),
            numbered: BTreeMap::new(),
            o: None,
            s: "def".to_owned(),
            texts: vec!["t".to_owned()],
        }
    }
}

fn sample(change: impl FnOnce(&mut Sample)) -> Sample {
    let mut sample = Sample::default();
    change(&mut sample);
    sample
}

fn check<T: DeserializeOwned + PartialEq + Debug>(text: &str, expected: &T) {
    match read::<T>(text.as_bytes()) {
        Ok(value) => assert_eq!(&value, expected, "{text}"),
        Err(error) => panic!("{text}: {error}"),
    }
}

#[test]
fn a_field_bends_towards_its_type() {
    let integers = ["12", "\"12\"", "12.0", "12.7", "\"12.7\"", "1.2e1", "+12", "012"];
    for text in integers {
        check(&format!(r#"{{"i":{text}}}"#), &sample(|it| it.i = 12));
    }
    for text in ["\"\"", "\"null\"", "false", "-0", "0.9"] {
        check(&format!(r#"{{"i":{text}}}"#), &sample(|it| it.i = 0));
    }
    check(r#"{"i":true}"#, &sample(|it| it.i = 1));
    check(r#"{"l":-9223372036854775808}"#, &sample(|it| it.l = i64::MIN));
    for text in ["true", "1", "\"1\"", "\"true\"", "\"TRUE\"", "\"Y\""] {
        check(&format!(r#"{{"b":{text}}}"#), &sample(|it| it.b = true));
    }
    for text in ["false", "0", "2", "\"0\"", "\"false\"", "\"\""] {
        check(&format!(r#"{{"b":{text}}}"#), &sample(|it| it.b = false));
    }
    for text in ["1.5", "\"1.5\"", "15e-1", "1.50"] {
        check(&format!(r#"{{"d":{text}}}"#), &sample(|it| it.d = 1.5));
    }
    check(r#"{"d":.5}"#, &sample(|it| it.d = 0.5));
    check(r#"{"d":""}"#, &sample(|it| it.d = 0.0));
    assert!(read::<Sample>(br#"{"d":NaN}"#).unwrap().d.is_nan());
    assert!(read::<Sample>(br#"{"d":"NaN"}"#).unwrap().d.is_nan());
    for (text, expected) in [
        ("12", "12"),
        ("1.50", "1.50"),
        ("true", "true"),
        (r#"{"a":[1]}"#, r#"{"a":[1]}"#),
        ("[1,2]", "[1,2]"),
        ("'it'", "it"),
    ] {
        check(&format!(r#"{{"s":{text}}}"#), &sample(|it| it.s = expected.to_owned()));
    }
    for text in ["\"CLUSTERING\"", "\"clustering\"", "1", "\"1\""] {
        let expected = sample(|it| it.e = MessageModel::Clustering);
        check(&format!(r#"{{"e":{text}}}"#), &expected);
    }
    check(r#"{"ints":["1",2,3.0]}"#, &sample(|it| it.ints = vec![1, 2, 3]));
    check(r#"{"ints":""}"#, &Sample::default());
    check(r#"{"map":""}"#, &Sample::default());
}

#[test]
fn a_null_is_as_if_it_were_not_there() {
    check(
        r#"{"b":null,"d":null,"e":null,"i":null,"l":null,"map":null,"o":null,"s":null,"texts":null}"#,
        &Sample::default(),
    );
    let entries = sample(|it| it.map = BTreeMap::from([("b".to_owned(), "1".to_owned())]));
    check(r#"{"map":{"a":null,"b":1}}"#, &entries);
    check(r#"{"ints":[1,null,2]}"#, &sample(|it| it.ints = vec![1, 2]));
    // 5.5.0 takes 0 for the retries here; 5.3 keeps 16, and so do we.
    check(r#"{"retryMaxTimes":null,"groupRetryPolicy":null}"#, &SubscriptionGroupConfig::default());
}

#[test]
fn sloppy_text_is_read() {
    let named = sample(|it| it.s = "a".to_owned());
    for text in [
        r#"{'s':'a'}"#,
        r#"{s:'a'}"#,
        r#"{"s":"a",}"#,
        r#" { "s" : "a" } "#,
        "{\"s\":\"a\"}\r\n",
        r#"{/*c*/"s":"a"/**/}//"#,
        "//c\n{\"s\":\"a\"}",
        r#"{"unknown":{"x":[1,{"y":null}],2:'z'},"s":"a","more":NaN}"#,
        r#"{"s":"\u0061"}"#,
        r#"{"s":"\x61"}"#,
    ] {
        check(text, &named);
    }
    check(r#"{"ints":[1,2,]}"#, &sample(|it| it.ints = vec![1, 2]));
    let strings = [
        (r#""\u4e2d\uD83D\uDE00\n\/\"\\""#, "中😀\n/\"\\"),
        (r#""\uD83D""#, "?"),
        (r#""\uD83D\n""#, "?\n"),
        (r#""\uD83D\u0041""#, "?A"),
        (r#""\uDE00""#, "?"),
        ("\"a\nb\"", "a\nb"),
        ("\"中😀\"", "中😀"),
    ];
    for (text, expected) in strings {
        check(&format!(r#"{{"s":{text}}}"#), &sample(|it| it.s = expected.to_owned()));
    }
}

#[test]
fn numbers_and_objects_may_be_keys() {
    let numbered = BTreeMap::from([(-2, "b".to_owned()), (10, "a".to_owned())]);
    for text in [r#"{10:"a",-2:'b'}"#, r#"{"10":"a","-2":"b"}"#] {
        let text = format!(r#"{{"numbered":{text}}}"#);
        check(&text, &sample(|it| it.numbered = numbered.clone()));
    }
    let expected =
        BTreeMap::from([(MessageQueue::new("T", "b", 0), 1), (MessageQueue::new("T", "b", 1), 2)]);
    for text in [
        r#"{{"brokerName":"b","queueId":0,"topic":"T"}:1,{"brokerName":"b","queueId":1,"topic":"T"}:2}"#,
        r#"{{brokerName:'b',queueId:"0",topic:'T',}:1,{"topic":"T","queueId":1,"brokerName":"b"} : "2",}"#,
        r#"{"{\"brokerName\":\"b\",\"queueId\":0,\"topic\":\"T\"}":1,'{"brokerName":"b","queueId":1,"topic":"T"}':2}"#,
    ] {
        check(text, &expected);
    }
    // The last of equal keys counts.
    check(
        r#"{"numbered":{1:"a","1":"b"}}"#,
        &sample(|it| {
            it.numbered = BTreeMap::from([(1, "b".to_owned())]);
        }),
    );
}

#[test]
fn a_heartbeat_with_ordinals_and_null_lists_is_read() {
    let text = r#"{"clientID":"c","producerDataSet":null,"consumerDataSet":[{"groupName":"g",
        "consumeType":1,"messageModel":0,"consumeFromWhere":"4","subscriptionDataSet":[
        {"topic":"T","subString":"*","tagsSet":null,"codeSet":[],"subVersion":"17"}]}]}"#;
    let heartbeat: HeartbeatData = read(text.as_bytes()).unwrap();
    let consumer = &heartbeat.consumer_data_set[0];
    assert_eq!(consumer.message_model, MessageModel::Broadcasting);
    assert_eq!(consumer.consume_from_where, ConsumeFromWhere::FirstOffset);
    assert_eq!(consumer.subscription_data_set[0].sub_version, 17);
    assert_eq!(consumer.subscription_data_set[0].expression_type, "TAG");
}

#[test]
fn what_cannot_be_meant_is_refused_with_the_place() {
    let cases = [
        ("", "the text is empty", 0),
        ("  ", "the text is empty", 2),
        ("null", "null is not a body", 0),
        ("[]", "an object was expected", 2),
        ("{", "the text ends too early", 1),
        (r#"{"i":1"#, "the text ends too early", 6),
        (r#"{"i""#, "a colon is missing", 4),
        (r#"{"i":"#, "the text ends where a value should be", 5),
        (r#"{"s":"a"#, "a string that is not closed", 6),
        (r#"{"s":"\"#, "a string that is not closed", 7),
        (r#"{"s":"\u12"}"#, "an escape that is not hexadecimal", 12),
        (r#"{"s":"\q"}"#, "an unknown escape in a string", 8),
        (r#"{"i":1} x"#, "there is more after the end", 8),
        (r#"{"i":1 "l":2}"#, "a comma is missing", 7),
        (r#"{"i":1,,"l":2}"#, "an unexpected character", 7),
        (r#"{"i":99999999999}"#, "a number too large for its field", 16),
        (r#"{"l":99999999999999999999}"#, "a number too large for its field", 25),
        (r#"{"l":1e30}"#, "a number too large for its field", 9),
        (r#"{"i":"abc"}"#, "a number was expected", 10),
        (r#"{"i":{}}"#, "a number was expected", 7),
        (r#"{"b":"x"}"#, "true or false was expected", 8),
        (r#"{"map":[]}"#, "an object was expected", 9),
        (r#"{"ints":{}}"#, "a list was expected", 10),
        (r#"{"e":77}"#, "a number that stands for no name", 7),
        (r#"{"numbered":{"x":"a"}}"#, "a number was expected", 16),
        (r#"{"i":1,"i":2}"#, "duplicate field `i`", 10),
        (r#"{"s":it}"#, "neither a value nor quoted", 7),
        ("{/", "a / that begins no comment", 1),
    ];
    for (text, what, at) in cases {
        let error = read::<Sample>(text.as_bytes()).unwrap_err();
        let expected = JsonError { what: what.to_owned(), at };
        assert_eq!(error, expected, "{text}");
    }
    let unknown = read::<Sample>(br#"{"e":"NOPE"}"#).unwrap_err();
    assert!(unknown.what.contains("NOPE"), "{unknown}");
    let not_utf8 = read::<Sample>(b"{\"s\":\"a\xff\xe4\"}").unwrap_err();
    assert_eq!(not_utf8.what, "a string that is not UTF-8");
}

#[test]
fn depth_ends_where_the_limit_says() {
    let nested = |open: &str, close: &str, depth: usize| {
        format!(r#"{{"unknown":{}{}}}"#, open.repeat(depth), close.repeat(depth))
    };
    let deepest = DEPTH_MAX as usize - 1;
    check(&nested("[", "]", deepest), &Sample::default());
    for text in [
        nested("[", "]", deepest + 1),
        nested("[", "]", 1_000_000),
        nested(r#"{"a":"#, "}", 1_000_000),
        nested("{", "}", 1_000_000),
        "{".repeat(1_000_000),
        "[".repeat(1_000_000),
    ] {
        let error = read::<Sample>(text.as_bytes()).unwrap_err();
        assert!(
            ["nested too deeply", "an object was expected"].contains(&error.what.as_str()),
            "{error}"
        );
    }
    // Objects hidden in quotes count as well.
    let mut key = "{}".to_owned();
    for _ in 0..8 {
        key = format!("{{{}:1}}", serde_json::to_string(&key).unwrap());
    }
    let _ = read::<BTreeMap<MessageQueue, i32>>(key.as_bytes());
}

#[test]
fn a_short_text_does_not_become_a_large_table() {
    let many = format!("[{}]", "{},".repeat(1_000_000));
    let error = read::<Vec<SubscriptionGroupConfig>>(many.as_bytes()).unwrap_err();
    assert_eq!(error.what, "more values than a text of this size warrants");
    // What is really that large passes: the sparest topics that make sense, and offsets.
    let topics: Vec<String> =
        (0..100_000).map(|n| format!(r#"{{"topicName":"topic{n}"}}"#)).collect();
    let topics: Vec<TopicConfig> = read(format!("[{}]", topics.join(",")).as_bytes()).unwrap();
    assert_eq!(topics.len(), 100_000);
    let offsets: Vec<String> = (0..100_000).map(|n| format!("{n}:1")).collect();
    let offsets: BTreeMap<i32, i64> =
        read(format!("{{{}}}", offsets.join(",")).as_bytes()).unwrap();
    assert_eq!(offsets.len(), 100_000);
}

#[test]
fn garbage_is_an_error_and_never_a_panic() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let alphabet = br#"{}[]:,"'\/u0d9-+.eE nulltruefalseNaN*ad"#;
    let valid = br#"{"offsetTable":{{"brokerName":"b","queueId":0,"topic":"T\u4e2d"}:{"maxOffset":1}},"topicPutTps":0.5}"#;
    for round in 0..20_000 {
        let text: Vec<u8> = if round % 2 == 0 {
            let length = random.random_range(0..60);
            (0..length).map(|_| alphabet[random.random_range(0..alphabet.len())]).collect()
        } else {
            let mut text = valid.to_vec();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..text.len());
                text[at] =
                    if random.random() { random.random() } else { alphabet[at % alphabet.len()] };
            }
            text
        };
        let _ = read::<TopicStatsTable>(&text);
        let _ = read::<Sample>(&text);
        let _ = read::<BTreeMap<MessageQueue, Vec<Sample>>>(&text);
    }
}

#[test]
fn each_dialect_writes_its_own_keys_and_letters() {
    let value = BTreeMap::from([(
        "k中\"",
        BTreeMap::from([(10, "\0\u{8}\t\n\u{b}\u{c}\r\u{1f}\"\\/<é\u{7f}\u{2028}😀"), (-2, "")]),
    )]);
    let fastjson = r#"{"k中\"":{-2:"",10:"\u0000\b\t\n\u000b\f\r\u001f\"\\/<é~ 😀"}}"#
        .replace('~', "\u{7f}")
        .replace(' ', "\u{2028}");
    assert_eq!(String::from_utf8(write(&value, Dialect::Fastjson)).unwrap(), fastjson);
    let standard = r#"{"k\u4e2d\"":{"-2":"","10":"\u0000\b\t\n\u000b\f\r\u001f\"\\/<\u00e9\u007f\u2028\ud83d\ude00"}}"#;
    assert_eq!(String::from_utf8(write(&value, Dialect::Standard)).unwrap(), standard);

    let queues = BTreeMap::from([(MessageQueue::new("T", "b", 0), 1)]);
    let fastjson = r#"{{"brokerName":"b","queueId":0,"topic":"T"}:1}"#;
    assert_eq!(write(&queues, Dialect::Fastjson), fastjson.as_bytes());
    let standard = r#"{"{\"brokerName\":\"b\",\"queueId\":0,\"topic\":\"T\"}":1}"#;
    assert_eq!(write(&queues, Dialect::Standard), standard.as_bytes());
    let file = "{\n\t{\"brokerName\":\"b\",\"queueId\":0,\"topic\":\"T\"}:1\n}";
    assert_eq!(write(&queues, Dialect::File), file.as_bytes());
}

#[test]
fn nothing_is_left_out_except_in_lists() {
    let value = BTreeMap::from([("a", None), ("b", Some(1)), ("c", None)]);
    assert_eq!(write(&value, Dialect::Fastjson), br#"{"b":1}"#);
    assert_eq!(write(&BTreeMap::from([("a", None::<i32>)]), Dialect::File), b"{}");
    assert_eq!(write(&[None, Some(1)], Dialect::Fastjson), b"[null,1]");
    assert_eq!(write(&[f64::NAN, 1.0], Dialect::Fastjson), b"[null,1.0]");
}

/// What Java printed for each.
#[test]
fn doubles_look_as_in_java() {
    let cases = [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (1.0, "1.0"),
        (100.0, "100.0"),
        (0.001, "0.001"),
        (9.0e-4, "9.0E-4"),
        (1e7, "1.0E7"),
        (9_999_999.5, "9999999.5"),
        (12_345_678.9, "1.23456789E7"),
        (1e21, "1.0E21"),
        (123_456_789_012_345_680.0, "1.2345678901234568E17"),
        (f64::MAX, "1.7976931348623157E308"),
        (1.0 / 3.0, "0.3333333333333333"),
        (-2e10, "-2.0E10"),
    ];
    for (value, expected) in cases {
        assert_eq!(java_double(value), expected);
    }
}
