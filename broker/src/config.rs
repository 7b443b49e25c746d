//! What a `broker.conf` may say: every key of the stock broker, and the few of them we act on.
//!
//! The table `config/keys.tsv` has a row for each key: name, type, stock's default, and what we do with
//! it: `start` (read once), `live` (may be changed while running), `jvm` (only tunes a JVM, named once in
//! a warning) or `none` (belongs to something not served yet: accepted, and named when it is changed).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use remoting::settings;
use remoting::tls;

use protocol::body::DataVersion;
use protocol::java_properties;

use crate::config_files;

/// Delay levels a broker may have; each has a queue.
const LEVELS_MAX: usize = 1024;

/// The stock keys.
const KEYS: &str = include_str!("config/keys.tsv");

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    pub name: &'static str,
    pub kind: &'static str,
    pub default: &'static str,
    pub effect: Effect,
}

/// What a key does here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Start,
    Live,
    Jvm,
    None,
}

/// Every stock key, in stock's order.
pub fn keys() -> impl Iterator<Item = Key> {
    KEYS.lines().map(|line| {
        let mut columns = line.split('\t');
        let mut next = || columns.next().unwrap_or_default();
        let (name, kind, default) = (next(), next(), next());
        let effect = match next() {
            "start" => Effect::Start,
            "live" => Effect::Live,
            "jvm" => Effect::Jvm,
            _ => Effect::None,
        };
        Key { name, kind, default, effect }
    })
}

/// A key or value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("unknown key `{key}`{}", suggestion.as_ref().map(|s| format!(", did you mean `{s}`?")).unwrap_or_default())]
    UnknownKey { key: String, suggestion: Option<String> },
    #[error("`{key}` cannot be `{value}`: {expected}")]
    BadValue { key: String, value: String, expected: &'static str },
    #[error("`{0}` may not be changed this way")]
    Blacklisted(String),
    #[error("`{0}` is read at start only; change it in the configuration file and restart")]
    StartOnly(String),
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
}

/// The values in force, by key, and the typed view of those we act on.
#[derive(Debug, Clone)]
pub struct Config {
    pub values: BTreeMap<String, String>,
    /// Those that were changed while running.
    pub changed: BTreeMap<String, String>,
    /// Counts such changes.
    pub version: DataVersion,
    pub cluster: String,
    pub name: String,
    pub id: i64,
    /// The address clients are told.
    pub advertised_ip: IpAddr,
    pub bind_ip: IpAddr,
    pub port: u16,
    pub ha_port: u16,
    pub nameservers: Vec<String>,
    pub store_root: PathBuf,
    pub commit_log: Option<PathBuf>,
    pub segment_bytes: u64,
    pub sync_flush: bool,
    pub sync_flush_timeout: Duration,
    pub flush_interval: Duration,
    pub message_bytes_max: usize,
    pub delay_levels_ms: Vec<i64>,
    pub permission: i32,
    pub auto_create_topic: bool,
    pub auto_create_group: bool,
    pub default_topic_queues: i32,
    pub cluster_topic: bool,
    pub broker_topic: bool,
    pub trace_topic: Option<String>,
    pub region: String,
    pub trace_on: bool,
    pub long_polling: bool,
    /// Queues are shared out when clients ask for it.
    pub server_load_balancer: bool,
    /// Groups pop where nothing else was said, and share so many queues with others then.
    pub pop_by_default: bool,
    pub pop_share_queues: i32,
    pub short_polling: Duration,
    pub register_period: Duration,
    pub register_timeout: Duration,
    pub compressed_register: bool,
    pub reject_transactions: bool,
    /// How long a half message may wait before its producer is asked.
    pub transaction_timeout_ms: i64,
    pub transaction_check_interval_ms: i64,
    pub transaction_checks_max: u32,
    pub flush_offsets_interval: Duration,
    pub pull_bytes_max: usize,
    pub pull_messages_max: usize,
    pub server_side_reset: bool,
    pub notify_consumer_changes: bool,
    pub lite_pull: bool,
    pub store_replies: bool,
    pub property_filter: bool,
    pub channel_expiry_ms: i64,
    pub query_max: i32,
    pub accept_sends_from_ms: i64,
    pub reserved_hours: u64,
    pub delete_when: String,
    pub disk_ratios: [u8; 3],
    pub force_cleaning: bool,
    pub check_crc_on_recover: bool,
    pub protect_system_topics: bool,
    pub mixed_message_type: bool,
    pub clear_retry_topics: bool,
    /// Topics that one registration names at most, and whether the table is told again and again.
    pub split_registration: Option<usize>,
    pub single_topic_register: bool,
    pub force_register: bool,
    pub tls: tls::Settings,
}

/// Switches that promise something to whoever turned them on; to go on without it would harm them unseen.
const PROMISES: [(&str, &str); 5] = [
    ("aclEnable", "access control is not served yet, and everybody would be let in"),
    ("authenticationEnabled", "access control is not served yet, and everybody would be let in"),
    ("authorizationEnabled", "access control is not served yet, and everybody would be let in"),
    ("enableControllerMode", "replication is not served yet, and nothing would be copied"),
    ("enableDLegerCommitLog", "replication is not served yet, and nothing would be copied"),
];

impl Config {
    /// Reads `given` over the defaults. Unknown keys are errors.
    pub fn new(given: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let mut values: BTreeMap<String, String> = keys()
            .map(|key| (key.name.to_owned(), key.default.to_owned()))
            .chain(OUR_DEFAULTS.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())))
            .collect();
        let mut bound = false;
        let (tls, given): (Vec<_>, Vec<_>) =
            given.into_iter().partition(|(key, _)| key.starts_with("tls."));
        let tls = tls::Settings::read(tls)?;
        for (key, value) in given {
            check_known(&values, &key)?;
            bound |= key == "bindAddress";
            values.insert(key, value.trim().to_owned());
        }
        let advertised: Option<IpAddr> = values["brokerIP1"].parse().ok();
        if !bound && advertised.is_some_and(|ip| !ip.is_loopback()) {
            // Whoever tells others an address wants to be reached at it.
            let any = if advertised.is_some_and(|ip| ip.is_ipv6()) { "::" } else { "0.0.0.0" };
            values.insert("bindAddress".to_owned(), any.to_owned());
        }
        let config = Self::typed(values)?;
        let client_enabled = tls.client_enabled || config.tls.client_enabled;
        Ok(Self { tls: tls::Settings { client_enabled, ..tls }, ..config })
    }

    /// The same with some live keys changed, as UPDATE_BROKER_CONFIG asks.
    pub fn updated(
        &self,
        changes: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut values = self.values.clone();
        let mut changed = self.changed.clone();
        let blacklist: Vec<&str> = self.values["configBlackList"].split(';').collect();
        for (key, value) in changes {
            check_known(&values, &key)?;
            if blacklist.contains(&key.as_str()) {
                return Err(ConfigError::Blacklisted(key));
            }
            let start_only = keys().any(|known| known.name == key && known.effect == Effect::Start);
            if start_only {
                if values[&key] == value.trim() {
                    // Not kept: the file may say something else at the next start.
                    continue;
                }
                return Err(ConfigError::StartOnly(key));
            }
            changed.insert(key.clone(), value.trim().to_owned());
            values.insert(key, value.trim().to_owned());
        }
        let tls = self.tls.clone();
        Ok(Self { changed, version: self.version, tls, ..Self::typed(values)? })
    }

    /// Writes down what was changed while running, for the next start.
    pub fn keep_changes(&self) -> std::io::Result<()> {
        let pairs = self.changed.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let text = java_properties::write(pairs);
        config_files::write_atomically(&self.changes_path(), text.as_bytes())
    }

    /// The configuration with what was changed in earlier runs.
    pub fn with_kept_changes(self) -> Result<Self, ConfigError> {
        match std::fs::read_to_string(self.changes_path()) {
            Ok(text) => self.updated(java_properties::read(&text)),
            Err(_) => Ok(self),
        }
    }

    /// Where changes are written down.
    pub fn changes_path(&self) -> PathBuf {
        self.store_root.join("config/broker.changed.conf")
    }

    /// Keys that were given a value of their own and only tune a JVM, or belong to what is not served.
    pub fn without_effect(&self) -> (Vec<&'static str>, Vec<&'static str>) {
        let changed = |effect: Effect| {
            keys()
                .filter(|key| key.effect == effect && self.values[key.name] != key.default)
                .map(|key| key.name)
                .collect()
        };
        (changed(Effect::Jvm), changed(Effect::None))
    }

    /// Every key that has a value, as GET_BROKER_CONFIG answers.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.values.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        pairs.filter(|(_, value)| *value != "null" && !value.starts_with(['$', '(']))
    }

    #[expect(clippy::too_many_lines, reason = "one line for each key")]
    fn typed(values: BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let read = Reader { values: &values };
        let ratio = |key| read.number(key, 1, 100).map(|ratio| ratio as u8);
        if read.number("brokerId", 0, i64::MAX)? != 0 || values["brokerRole"] == "SLAVE" {
            let (key, value) = ("brokerRole".to_owned(), "SLAVE".to_owned());
            let expected = "replication is not served yet, so a broker is a master with brokerId 0";
            return Err(ConfigError::BadValue { key, value, expected });
        }
        for (key, expected) in PROMISES {
            if read.flag(key)? {
                return Err(read.bad(key, expected));
            }
        }
        let trace_topic = read.flag("traceTopicEnable")?.then(|| read.text("msgTraceTopicName"));
        Ok(Self {
            cluster: read.name("brokerClusterName")?,
            name: read.name("brokerName")?,
            id: read.number("brokerId", 0, i64::MAX)?,
            advertised_ip: read.address("brokerIP1")?,
            bind_ip: read.address("bindAddress")?,
            port: read.port("listenPort")?,
            ha_port: read.port("haListenPort")?,
            nameservers: addresses(&values["namesrvAddr"]),
            store_root: read.text("storePathRootDir").into(),
            commit_log: Some(read.text("storePathCommitLog"))
                .filter(|path| !path.is_empty() && path != "null")
                .map(PathBuf::from),
            segment_bytes: read.number("mappedFileSizeCommitLog", 64 * 1024, 1 << 40)? as u64,
            sync_flush: read.one_of("flushDiskType", &["ASYNC_FLUSH", "SYNC_FLUSH"])? == 1,
            sync_flush_timeout: read.millis("syncFlushTimeout")?,
            flush_interval: read.millis("flushIntervalCommitLog")?,
            message_bytes_max: read.number("maxMessageSize", 1, 1 << 30)? as usize,
            delay_levels_ms: read.levels("messageDelayLevel")?,
            permission: read.number("brokerPermission", 0, 7)? as i32,
            auto_create_topic: read.flag("autoCreateTopicEnable")?,
            auto_create_group: read.flag("autoCreateSubscriptionGroup")?,
            default_topic_queues: read.number("defaultTopicQueueNums", 1, 65_535)? as i32,
            cluster_topic: read.flag("clusterTopicEnable")?,
            broker_topic: read.flag("brokerTopicEnable")?,
            trace_topic,
            region: read.text("regionId"),
            trace_on: read.flag("traceOn")?,
            long_polling: read.flag("longPollingEnable")?,
            server_load_balancer: read.flag("serverLoadBalancerEnable")?,
            pop_by_default: match values["defaultMessageRequestMode"].as_str() {
                "PULL" => false,
                "POP" => true,
                _ => return Err(read.bad("defaultMessageRequestMode", "PULL or POP")),
            },
            pop_share_queues: read.number("defaultPopShareQueueNum", -1, i64::from(i32::MAX))?
                as i32,
            short_polling: read.millis("shortPollingTimeMills")?,
            register_period: read
                .millis("registerNameServerPeriod")?
                .clamp(Duration::from_secs(10), Duration::from_secs(60)),
            register_timeout: read.millis("registerBrokerTimeoutMills")?,
            compressed_register: read.flag("compressedRegister")?,
            reject_transactions: read.flag("rejectTransactionMessage")?,
            transaction_timeout_ms: read.number("transactionTimeOut", 0, 1 << 40)?,
            transaction_check_interval_ms: read.number("transactionCheckInterval", 1, 1 << 40)?,
            transaction_checks_max: read.number("transactionCheckMax", 0, 1 << 30)? as u32,
            flush_offsets_interval: read.millis("flushConsumerOffsetInterval")?,
            pull_bytes_max: read.number("maxTransferBytesOnMessageInMemory", 1, 1 << 27)? as usize,
            pull_messages_max: read.number("maxTransferCountOnMessageInMemory", 1, 65_535)?
                as usize,
            server_side_reset: read.flag("useServerSideResetOffset")?,
            notify_consumer_changes: read.flag("notifyConsumerIdsChangedEnable")?,
            lite_pull: read.flag("litePullMessageEnable")?,
            store_replies: read.flag("storeReplyMessageEnable")?,
            property_filter: read.flag("enablePropertyFilter")?,
            channel_expiry_ms: read.number("channelExpiredTimeout", 1000, i64::MAX)?,
            query_max: read.number("defaultQueryMaxNum", 1, 65_535)? as i32,
            accept_sends_from_ms: read.number("startAcceptSendRequestTimeStamp", 0, i64::MAX)?,
            reserved_hours: read.number("fileReservedTime", 0, 1 << 32)? as u64,
            delete_when: read.text("deleteWhen"),
            disk_ratios: [
                ratio("diskMaxUsedSpaceRatio")?,
                ratio("diskSpaceCleanForciblyRatio")?,
                ratio("diskSpaceWarningLevelRatio")?,
            ],
            force_cleaning: read.flag("cleanFileForciblyEnable")?,
            check_crc_on_recover: read.flag("checkCRCOnRecover")?,
            protect_system_topics: read.flag("validateSystemTopicWhenUpdateTopic")?,
            mixed_message_type: read.flag("enableMixedMessageType")?,
            clear_retry_topics: read.flag("clearRetryTopicWhenDeleteTopic")?,
            split_registration: read
                .flag("enableSplitRegistration")?
                .then(|| read.number("splitRegistrationSize", 2, 1 << 20))
                .transpose()?
                .map(|size| size as usize),
            single_topic_register: read.flag("enableSingleTopicRegister")?,
            force_register: read.flag("forceRegister")?,
            tls: tls::Settings { client_enabled: read.flag("useTLS")?, ..Default::default() },
            values,
            changed: BTreeMap::new(),
            version: DataVersion::default(),
        })
    }
}

/// Where our default is not stock's: addresses and paths that stock takes from the machine, and the
/// port that its start-up program sets.
const OUR_DEFAULTS: [(&str, &str); 7] = [
    ("listenPort", "10911"),
    ("brokerName", "broker-a"),
    ("brokerIP1", "127.0.0.1"),
    ("brokerIP2", "127.0.0.1"),
    ("bindAddress", "127.0.0.1"),
    ("storePathRootDir", "data"),
    ("namesrvAddr", ""),
];

/// `a:1;b:2` or `a:1,b:2` as addresses.
fn addresses(text: &str) -> Vec<String> {
    let parts = text.split([';', ',']).map(str::trim);
    parts.filter(|part| !part.is_empty() && *part != "null").map(str::to_owned).collect()
}

fn check_known(values: &BTreeMap<String, String>, key: &str) -> Result<(), ConfigError> {
    if values.contains_key(key) {
        return Ok(());
    }
    let suggestion = settings::closest(values.keys().map(String::as_str), key).map(str::to_owned);
    Err(ConfigError::UnknownKey { key: key.to_owned(), suggestion })
}

struct Reader<'a> {
    values: &'a BTreeMap<String, String>,
}

impl Reader<'_> {
    fn text(&self, key: &'static str) -> String {
        self.values[key].clone()
    }

    fn bad(&self, key: &'static str, expected: &'static str) -> ConfigError {
        ConfigError::BadValue { key: key.to_owned(), value: self.text(key), expected }
    }

    fn name(&self, key: &'static str) -> Result<String, ConfigError> {
        let name = self.text(key);
        match protocol::name::check_topic(&name) {
            Ok(()) => Ok(name),
            Err(_) => Err(self.bad(key, "a name of letters, digits, `_`, `-`, `%` and `|`")),
        }
    }

    fn number(&self, key: &'static str, min: i64, max: i64) -> Result<i64, ConfigError> {
        let number: i64 = self.values[key].parse().map_err(|_| self.bad(key, "a whole number"))?;
        if (min..=max).contains(&number) {
            Ok(number)
        } else {
            Err(self.bad(key, "a number within its range"))
        }
    }

    fn port(&self, key: &'static str) -> Result<u16, ConfigError> {
        self.number(key, 0, 65_535).map(|port| port as u16)
    }

    fn millis(&self, key: &'static str) -> Result<Duration, ConfigError> {
        Ok(Duration::from_millis(self.number(key, 0, i64::MAX)? as u64))
    }

    fn flag(&self, key: &'static str) -> Result<bool, ConfigError> {
        match self.values[key].as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(self.bad(key, "true or false")),
        }
    }

    fn address(&self, key: &'static str) -> Result<IpAddr, ConfigError> {
        match self.values[key].as_str() {
            "" | "localhost" => Ok(Ipv4Addr::LOCALHOST.into()),
            text => text.parse().map_err(|_| self.bad(key, "an IP address")),
        }
    }

    fn one_of(&self, key: &'static str, choices: &[&str]) -> Result<usize, ConfigError> {
        let chosen =
            choices.iter().position(|choice| self.values[key].eq_ignore_ascii_case(choice));
        chosen.ok_or_else(|| self.bad(key, "ASYNC_FLUSH or SYNC_FLUSH"))
    }

    /// `1s 5s 10m` as milliseconds.
    fn levels(&self, key: &'static str) -> Result<Vec<i64>, ConfigError> {
        let level = |text: &str| {
            let unit = match text.chars().last()? {
                's' => 1000,
                'm' => 60_000,
                'h' => 3_600_000,
                'd' => 86_400_000,
                _ => return None,
            };
            let count: i64 = text[..text.len() - 1].parse().ok()?;
            count.checked_mul(unit).filter(|ms| *ms >= 0)
        };
        let levels: Option<Vec<i64>> = self.values[key].split_whitespace().map(level).collect();
        let levels = levels.filter(|levels| !levels.is_empty() && levels.len() <= LEVELS_MAX);
        levels.ok_or_else(|| self.bad(key, "numbers with a unit s, m, h or d, between blanks"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::new(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
    }

    #[test]
    fn stock_keys_are_taken_and_typed() {
        let config = config(&[
            ("brokerName", "b-1"),
            ("flushDiskType", "SYNC_FLUSH"),
            ("namesrvAddr", "127.0.0.1:9876;127.0.0.2:9876"),
            ("sendMessageThreadPoolNums", "32"),
            ("enableLmq", "true"),
        ])
        .unwrap();
        assert!(config.sync_flush);
        assert_eq!(config.nameservers, ["127.0.0.1:9876", "127.0.0.2:9876"]);
        assert_eq!(config.delay_levels_ms[..3], [1000, 5000, 10_000]);
        assert_eq!(config.without_effect(), (vec!["sendMessageThreadPoolNums"], vec!["enableLmq"]));
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_one() {
        let error = config(&[("flushDiscType", "x")]).unwrap_err();
        assert_eq!(error.to_string(), "unknown key `flushDiscType`, did you mean `flushDiskType`?");
        assert_eq!(config(&[("zzzz", "x")]).unwrap_err().to_string(), "unknown key `zzzz`");
    }

    #[test]
    fn a_bad_value_is_named() {
        for (key, value) in
            [("listenPort", "x"), ("autoCreateTopicEnable", "yes"), ("messageDelayLevel", "1x")]
        {
            let error = config(&[(key, value)]).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains(value), "{error}");
        }
    }

    #[test]
    fn what_promises_safety_that_is_not_there_is_refused() {
        for (key, _) in PROMISES {
            let error = config(&[(key, "true")]).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains("not served yet"), "{error}");
            assert!(config(&[(key, "false")]).is_ok());
        }
    }

    #[test]
    fn who_advertises_an_address_listens_to_others() {
        let bind = |pairs| config(pairs).unwrap().bind_ip.to_string();
        assert_eq!(bind(&[]), "127.0.0.1");
        assert_eq!(bind(&[("brokerIP1", "10.0.0.7")]), "0.0.0.0");
        assert_eq!(bind(&[("brokerIP1", "10.0.0.7"), ("bindAddress", "10.0.0.7")]), "10.0.0.7");
        assert!(
            config(&[("brokerRole", "SLAVE")]).unwrap_err().to_string().contains("replication")
        );
    }

    #[test]
    fn live_keys_change_and_others_do_not() {
        let config = config(&[]).unwrap();
        let change = |key: &str, value: &str| config.updated([(key.to_owned(), value.to_owned())]);
        assert!(!change("autoCreateTopicEnable", "false").unwrap().auto_create_topic);
        assert!(matches!(change("brokerConfigPath", "x"), Err(ConfigError::Blacklisted(_))));
        assert!(matches!(change("listenPort", "1"), Err(ConfigError::StartOnly(_))));
        assert!(change("listenPort", "10911").unwrap().changed.is_empty());
    }

    #[test]
    fn there_is_at_least_one_delay_level() {
        assert!(config(&[("messageDelayLevel", " ")]).is_err());
        assert_eq!(config(&[("messageDelayLevel", "2d")]).unwrap().delay_levels_ms, [172_800_000]);
    }
}
