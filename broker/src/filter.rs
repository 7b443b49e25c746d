//! Which messages a subscription wants. Tags are compared by hash here; consumers compare the text.

pub mod sql;

use protocol::record::{Record, tags_code};
use protocol::reply::{Refusal, ReplyCode};

use sql::Sql;

/// Tags one subscription may name.
pub const TAGS_MAX: usize = 1024;

/// A tag subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tags {
    All,
    /// Hashes, sorted.
    Any(Vec<i64>),
}

impl Tags {
    /// Reads `*`, nothing, or `a || b`.
    pub fn parse(kind: &str, expression: &str) -> Result<Self, Refusal> {
        if !kind.is_empty() && kind != "TAG" {
            let remark =
                format!("The broker does not support consumer to filter message by {kind}");
            return Err(Refusal::new(ReplyCode::SystemError, remark));
        }
        let expression = expression.trim();
        if expression.is_empty() || expression == "*" {
            return Ok(Self::All);
        }
        let tags = expression.split("||").map(str::trim).filter(|tag| !tag.is_empty());
        let mut codes: Vec<i64> = tags.map(|tag| tags_code(tag.as_bytes())).collect();
        if codes.is_empty() || codes.len() > TAGS_MAX {
            let remark = format!("a subscription names 1 to {TAGS_MAX} tags, not {}", codes.len());
            return Err(Refusal::new(ReplyCode::SubscriptionParseFailed, remark));
        }
        codes.sort_unstable();
        codes.dedup();
        Ok(Self::Any(codes))
    }

    pub fn wants(&self, code: i64) -> bool {
        match self {
            Self::All => true,
            Self::Any(codes) => codes.binary_search(&code).is_ok(),
        }
    }
}

/// A subscription of either kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Wanted {
    Tags(Tags),
    Sql(Sql),
}

impl Wanted {
    /// Reads a subscription; what is not about tags is served if `enablePropertyFilter` says so.
    pub fn parse(kind: &str, expression: &str, by_properties: bool) -> Result<Self, Refusal> {
        if kind != "SQL92" {
            return Tags::parse(kind, expression).map(Self::Tags);
        }
        let sql = Sql::parse(expression)
            .map_err(|error| Refusal::new(ReplyCode::SubscriptionParseFailed, error.to_string()))?;
        if !by_properties {
            let remark = "The broker does not support consumer to filter message by SQL92 \
                          (enablePropertyFilter)";
            return Err(Refusal::new(ReplyCode::SystemError, remark));
        }
        Ok(Self::Sql(sql))
    }
}

impl store::Filter for &Wanted {
    fn by_tags(&mut self, code: i64) -> bool {
        match self {
            Wanted::Tags(tags) => tags.wants(code),
            Wanted::Sql(_) => true,
        }
    }

    fn wants_records(&self) -> bool {
        matches!(self, Wanted::Sql(_))
    }

    fn by_record(&mut self, record: &[u8]) -> bool {
        match self {
            Wanted::Tags(_) => true,
            Wanted::Sql(sql) => {
                Record::decode(record).is_ok_and(|(record, _)| sql.wants(record.properties))
            }
        }
    }
}

impl store::Filter for &Tags {
    fn by_tags(&mut self, code: i64) -> bool {
        self.wants(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_as_consumers_write_them() {
        for all in ["", " ", "*", " * "] {
            assert_eq!(Tags::parse("TAG", all).unwrap(), Tags::All);
        }
        let tags = Tags::parse("", "a || bc||a").unwrap();
        assert!(tags.wants(97) && tags.wants(tags_code(b"bc")) && !tags.wants(0));
        assert!(Tags::parse("TAG", "||").is_err());
        assert!(Tags::parse("SQL92", "a > 1").is_err());
    }
}
