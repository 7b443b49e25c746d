//! Which client speaks, and which release it says it is.

macro_rules! languages {
    ($($code:literal $name:ident $text:literal;)*) => {
        /// The implementation language a peer announces.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
        pub enum Language {
            $(#[doc = $text] $name,)*
            /// A name or number this table does not know.
            #[default]
            Unknown,
        }

        impl Language {
            pub const fn from_ordinal(ordinal: u8) -> Self {
                match ordinal { $($code => Self::$name,)* _ => Self::Unknown }
            }

            pub fn from_name(name: &[u8]) -> Self {
                $(if name == $text.as_bytes() { return Self::$name; })*
                Self::Unknown
            }

            /// The byte in a binary header; what is unknown travels as `OTHER`.
            pub const fn ordinal(self) -> u8 {
                match self { $(Self::$name => $code,)* Self::Unknown => 7 }
            }

            /// The name in a JSON header.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* Self::Unknown => "OTHER" }
            }
        }
    };
}

languages! {
    0 Java "JAVA";
    1 Cpp "CPP";
    2 Dotnet "DOTNET";
    3 Python "PYTHON";
    4 Delphi "DELPHI";
    5 Erlang "ERLANG";
    6 Ruby "RUBY";
    7 Other "OTHER";
    8 Http "HTTP";
    9 Go "GO";
    10 Php "PHP";
    11 Oms "OMS";
    12 Rust "RUST";
    13 NodeJs "NODE_JS";
}

/// Release ordinals that behaviour depends on: every release has its snapshot one below.
pub mod version {
    /// What our answers announce: the release whose behaviour we match, V5_5_0.
    pub const OURS: i32 = 513;
    /// Consumers below it are not sent offset resets and status requests.
    pub const V3_0_7_SNAPSHOT: i32 = 28;
    /// Registrations of brokers below it carry no data version.
    pub const V3_0_11: i32 = 37;
    /// Consumers below it are not asked for running information.
    pub const V3_1_8_SNAPSHOT: i32 = 62;
    /// From here on a consumer's own `maxReconsumeTimes` counts.
    pub const V3_4_9: i32 = 121;
    /// From here on route answers are standard JSON.
    pub const V4_9_4: i32 = 401;
    /// From here on a compressed registration ends with queue mappings.
    pub const V5_0_0: i32 = 413;
    /// Clients above it understand [`GO_AWAY`](crate::reply::ReplyCode::GoAway).
    pub const V5_3_1: i32 = 475;

    /// `513` as `V5_5_0`; snapshots end in `_SNAPSHOT`.
    pub fn describe(ordinal: i32) -> String {
        const FIRST_4_0: i32 = 213;
        if ordinal < FIRST_4_0 {
            return format!("V3_{ordinal}");
        }
        let (release, snapshot) = (ordinal - FIRST_4_0, ordinal % 2 == 0);
        let release = if snapshot { release + 1 } else { release };
        let (major, rest) = (4 + release / 200, release % 200);
        let suffix = if snapshot { "_SNAPSHOT" } else { "" };
        format!("V{major}_{}_{}{suffix}", rest / 20, rest % 20 / 2)
    }

    #[cfg(test)]
    mod tests {
        #[test]
        fn releases_are_described_by_their_numbers() {
            for (ordinal, text) in [
                (513, "V5_5_0"),
                (512, "V5_5_0_SNAPSHOT"),
                (479, "V5_3_3"),
                (413, "V5_0_0"),
                (401, "V4_9_4"),
                (213, "V4_0_0"),
            ] {
                assert_eq!(super::describe(ordinal), text);
            }
        }
    }
}
