//! Takes back a delayed message before it is delivered.

use protocol::grpc::{Code, RecallMessageRequest, RecallMessageResponse};
use protocol::header::send::RecallMessage;

use super::check;
use super::status::{Failure, ok};
use crate::front::Front;

pub(super) async fn recall(
    front: &Front,
    request: RecallMessageRequest,
) -> Result<RecallMessageResponse, Failure> {
    let topic = check::topic(request.topic.as_ref())?;
    let broker = broker_of(&request.recall_handle)
        .ok_or_else(|| Failure::new(Code::BadRequest, "the recall handle is malformed"))?;
    let header = RecallMessage {
        producer_group: Some(topic.to_owned()),
        topic: topic.to_owned(),
        recall_handle: request.recall_handle,
    };
    let (reply, _) = front.backend.ask(&broker, &header, Vec::new()).await?;
    Ok(RecallMessageResponse { status: Some(ok()), message_id: reply.msg_id })
}

/// The broker a recall handle names: the third word of `v1 topic broker time id` in URL-safe base64.
fn broker_of(handle: &str) -> Option<String> {
    let bytes = base64(handle)?;
    let text = String::from_utf8(bytes).ok()?;
    let mut words = text.split(' ');
    if words.next() != Some("v1") {
        return None;
    }
    words.nth(1).filter(|broker| !broker.is_empty()).map(str::to_owned)
}

/// Handles are about a hundred bytes long.
const HANDLE_BYTES_MAX: usize = 4096;

fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    if digits.len() > HANDLE_BYTES_MAX || digits.len() % 4 == 1 {
        return None;
    }
    let (mut bytes, mut bits, mut held) = (Vec::with_capacity(digits.len()), 0u32, 0u32);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'-' | b'+' => 62,
            b'_' | b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 0xFF) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recall_handle_names_its_broker() {
        // `v1 t broker-a 17 id`
        assert_eq!(broker_of("djEgdCBicm9rZXItYSAxNyBpZA=="), Some("broker-a".to_owned()));
        for bad in ["", "x", "djIgdCBicm9rZXItYSAxNyBpZA==", "djEgdA==", "é", "====", "!!!!"] {
            assert_eq!(broker_of(bad), None, "{bad}");
        }
    }
}
