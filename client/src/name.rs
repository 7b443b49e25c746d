//! Names of topics and groups, checked when they are made.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::Error;

/// The name of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

/// The name of a consumer group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group(Arc<str>);

impl Topic {
    /// A topic that a client may use: a legal name that is not the system's.
    pub fn new(name: &str) -> Result<Self, Error> {
        let invalid = |why: String| Error::invalid("the topic", why);
        protocol::name::check_topic(name).map_err(|error| invalid(error.to_string()))?;
        if protocol::name::is_system_topic(name) {
            return Err(invalid(format!("`{name}` is a topic of the system")));
        }
        Ok(Self(name.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A name that came from the server.
    pub(crate) fn received(name: &str) -> Self {
        Self(name.into())
    }
}

impl Group {
    /// A group that a client may use: a legal name that is not the system's.
    pub fn new(name: &str) -> Result<Self, Error> {
        let invalid = |why: String| Error::invalid("the consumer group", why);
        protocol::name::check_group(name).map_err(|error| invalid(error.to_string()))?;
        Ok(Self(name.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Topic {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::new(name)
    }
}

impl FromStr for Group {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::new(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_server_would_refuse_are_refused_here() {
        for name in ["", " ", "a b", "a/b", "a\n", &"x".repeat(128), "TBW102"] {
            assert!(Topic::new(name).is_err(), "{name:?}");
        }
        for name in ["", "a b", "ä", &"x".repeat(121)] {
            assert!(Group::new(name).is_err(), "{name:?}");
        }
        assert_eq!(Topic::new("orders_1-%|").unwrap().as_str(), "orders_1-%|");
        assert_eq!("g".parse::<Group>().unwrap().to_string(), "g");
    }
}
