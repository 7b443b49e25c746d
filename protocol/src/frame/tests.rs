use super::*;
use crate::header::Empty;
use crate::header::offset::GetMaxOffset;
use crate::header::send::Send;

fn sample(encoding: Encoding) -> Command<'static> {
    let header =
        GetMaxOffset { topic: "orders \"ü\"\u{1}\u{2}\\".into(), queue_id: -3, committed: true };
    let mut command = Command::request(30, &header).with_body(*b"body");
    command.opaque = 77;
    command.encoding = encoding;
    command
}

fn encoded(command: &Command<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    command.encode(&mut out);
    out
}

fn json_frame(header: &str, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend_from_slice(&(4 + header.len() as u32 + body.len() as u32).to_be_bytes());
    frame.extend_from_slice(&(header.len() as u32).to_be_bytes());
    frame.extend_from_slice(header.as_bytes());
    frame.extend_from_slice(body);
    frame
}

#[test]
fn what_is_encoded_decodes_to_the_same_command() {
    for encoding in [Encoding::Json, Encoding::Binary] {
        let command = sample(encoding);
        let mut frame = encoded(&command);
        assert_eq!(frame_len(&frame), Ok(Some(frame.len())));
        let decoded = Command::decode(&mut frame).unwrap();
        assert_eq!(decoded, command);
        assert_eq!(decoded.fields.read::<GetMaxOffset>().unwrap().queue_id, -3);
    }
}

#[test]
fn numbers_booleans_and_nulls_are_taken_where_text_is_expected() {
    let header = r#" { "code" : "310", "extra": {"a":[1,{"b":"]"}],"c":[]}, "language":1, "opaque":9,
        "extFields":{"a":"g","b":"t","c":"TBW102","d":4,"e":0,"f":0,"g":1700000000000,"h":0,"i":null,"m":true},
        "flag":0,"version":333,"remark":null }"#;
    let mut frame = json_frame(header, b"x");
    let command = Command::decode(&mut frame).unwrap();
    assert_eq!((command.code, command.language, command.opaque), (310, Language::Cpp, 9));
    let send: Send<'_> = command.fields.read().unwrap();
    assert_eq!((send.topic, send.queue_id, send.batch), ("t", 0, true));
    assert_eq!((send.properties, send.born_timestamp), (None, 1_700_000_000_000));
}

#[test]
fn an_empty_list_of_fields_and_none_stay_apart() {
    for (header, sent) in [
        (
            r#"{"code":1,"extFields":{},"flag":0,"language":"JAVA","opaque":1,"serializeTypeCurrentRPC":"JSON","version":0}"#,
            true,
        ),
        (
            r#"{"code":1,"flag":0,"language":"JAVA","opaque":1,"serializeTypeCurrentRPC":"JSON","version":0}"#,
            false,
        ),
    ] {
        let frame = json_frame(header, b"");
        let mut bytes = frame.clone();
        let command = Command::decode(&mut bytes).unwrap();
        assert_eq!(command.fields.was_sent(), sent);
        assert_eq!(encoded(&command.into_owned()), frame);
    }
    // Ours have a list only when there is something in it.
    assert!(!String::from_utf8(encoded(&Command::reply(&Empty {}))).unwrap().contains("extFields"));
}

#[test]
fn surrogate_pairs_and_escapes_are_undone() {
    let mut frame = json_frame(
        r#"{"code":1,"extFields":{"k":"a\u0001b\uD83D\uDE00\n\/\"é"},"flag":0,"opaque":1,"remark":"\u00fc"}"#,
        b"",
    );
    let command = Command::decode(&mut frame).unwrap();
    assert_eq!(command.fields.get("k"), Some("a\u{1}b😀\n/\"é"));
    assert_eq!(command.remark.as_deref(), Some("ü"));
}

#[test]
fn lengths_that_lie_and_text_that_is_broken_are_errors() {
    assert_eq!(frame_len(&[1, 2]), Ok(None));
    assert_eq!(frame_len(&[0x7f, 0, 0, 0]), Err(FrameError::TooLong(0x7f00_0000)));
    assert_eq!(Command::decode(&mut [0, 0, 0, 1, 0]), Err(FrameError::TooShort(5)));
    let mut frame = [0, 0, 0, 4, 0, 0, 0, 9];
    let overrun = FrameError::HeaderOverrun { claimed: 9, present: 0 };
    assert_eq!(Command::decode(&mut frame), Err(overrun));
    let mut frame = [0, 0, 0, 4, 7, 0, 0, 0];
    assert_eq!(Command::decode(&mut frame), Err(FrameError::UnknownEncoding(7)));
    let deep = format!(r#"{{"x":{}"#, "[".repeat(10_000));
    for broken in ["", "{", "[]", r#"{"code":1"#, r#"{"code":x"y"}"#, r#"{"code":1}{"#, &deep] {
        let mut frame = json_frame(broken, b"");
        let outcome = Command::decode(&mut frame);
        assert!(matches!(outcome, Err(FrameError::BadJson(_))), "{broken:.40}: {outcome:?}");
    }
}

#[test]
fn every_cut_of_a_frame_is_an_error_or_incomplete_and_never_a_panic() {
    for encoding in [Encoding::Json, Encoding::Binary] {
        let whole = encoded(&sample(encoding));
        for cut in 8..whole.len() - 4 {
            let mut frame = whole[..cut].to_vec();
            let header_len = (cut - 8) as u32 | u32::from(whole[4]) << 24;
            frame[4..8].copy_from_slice(&header_len.to_be_bytes());
            assert!(Command::decode(&mut frame).is_err(), "{encoding:?} cut at {cut}");
        }
    }
}

#[test]
fn random_damage_never_panics() {
    use rand::{Rng, SeedableRng};
    let seed: u64 = rand::random();
    println!("SEED={seed}");
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    for round in 0..20_000 {
        let encoding = if round % 2 == 0 { Encoding::Json } else { Encoding::Binary };
        let mut frame = encoded(&sample(encoding));
        for _ in 0..random.random_range(1..6) {
            let at = random.random_range(4..frame.len());
            frame[at] = random.random();
        }
        // Either outcome is fine; what is read must be readable.
        if let Ok(command) = Command::decode(&mut frame) {
            let _ = command.fields.read::<GetMaxOffset>();
            let _ = command.fields.read::<Send<'_>>();
            let _ = encoded(&command);
        }
    }
}

#[test]
fn pop_codes_cut_to_16_bits_get_their_value_back() {
    for code in [200_050, 200_051, 200_053, 200_054, 200_151] {
        let mut command = sample(Encoding::Binary);
        command.code = code;
        let mut frame = encoded(&command);
        assert_eq!(Command::decode(&mut frame).unwrap().code, code);
    }
}
