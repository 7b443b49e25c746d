//! How a proxy is set up: what a stock `rmq-proxy.json` says, and a few keys of ours.
//!
//! The table `config/keys.tsv` has a row for each stock key: name, type, stock's default, and what it does
//! here: `start` (read once), `jvm` (only tunes a JVM) or `none` (belongs to something not served).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use remoting::settings::closest;
use remoting::tls;
use serde::Deserialize;
use serde_json::Value;

/// The stock keys.
const KEYS: &str = include_str!("config/keys.tsv");

/// Sets the level of the log; says why not.
pub type ChangeLogLevel = fn(&str) -> Result<(), String>;

/// What a proxy is told at its start.
#[derive(Debug, Clone)]
pub struct Config {
    pub cluster: String,
    pub name: String,
    pub listeners: Vec<Listener>,
    pub nameservers: Vec<String>,
    pub body_bytes_max: usize,
    pub refuse_empty_bodies: bool,
    pub user_properties_max: usize,
    pub user_properties_bytes_max: usize,
    /// A message group has fewer bytes than this.
    pub message_group_bytes_max: usize,
    pub delay_max_ms: i64,
    pub transaction_recovery_seconds_max: i64,
    pub check_message_type: bool,
    /// How long messages are hidden whose receipts we renew.
    pub invisible_default_ms: i64,
    pub invisible_on_receive_min_ms: i64,
    pub invisible_max_ms: i64,
    pub auto_renew: bool,
    /// A client that has said nothing for so long has left.
    pub client_silent_max: Duration,
    /// How often receipts and silent clients are looked at.
    pub renew_period: Duration,
    pub polling_max: Duration,
    /// Kept back from a client's time for the way to it.
    pub polling_reserve: Duration,
    pub receive_batch: i32,
    pub producer_attempts: i32,
    pub producer_backoff_ms: (i64, i64),
    pub producer_backoff_multiplier: i32,
    pub request_bytes_max: usize,
    /// How long a stopping proxy waits for answers that are still to come.
    pub drain_max: Duration,
    /// Certificate chain and key; without them a certificate is made at the start.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// What the keys `tls.*` say: who may come in, and whether brokers are spoken to encrypted.
    pub tls: tls::Settings,
    /// How often the files of the certificate are looked at.
    pub certificate_watch: Duration,
    /// Pauses of the delay levels, when delays are to be rounded up to one of them.
    pub delay_levels_ms: Option<Vec<i64>>,
    /// How often brokers are told that producers are here.
    pub heartbeat_period: Duration,
    /// Changes how much this process logs, where whoever started it lets operators do that.
    pub change_log_level: Option<ChangeLogLevel>,
}

/// A place where clients come in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    #[serde(default)]
    pub name: String,
    pub bind: SocketAddr,
    /// What clients are told to dial, `host:port`; without it what they dialled.
    pub advertise: Option<String>,
    /// Not being able to listen here is no reason to end.
    #[serde(skip)]
    pub optional: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cluster: "DefaultCluster".to_owned(),
            name: String::new(),
            listeners: Vec::new(),
            nameservers: Vec::new(),
            body_bytes_max: 4 * 1024 * 1024,
            refuse_empty_bodies: true,
            user_properties_max: 128,
            user_properties_bytes_max: 16 * 1024,
            message_group_bytes_max: 64,
            delay_max_ms: 86_400_000,
            transaction_recovery_seconds_max: 3600,
            check_message_type: true,
            invisible_default_ms: 60_000,
            invisible_on_receive_min_ms: 10_000,
            invisible_max_ms: 43_200_000,
            auto_renew: true,
            client_silent_max: Duration::from_secs(120),
            renew_period: Duration::from_secs(5),
            polling_max: Duration::from_secs(20),
            polling_reserve: Duration::from_millis(100),
            receive_batch: 32,
            producer_attempts: 3,
            producer_backoff_ms: (10, 1000),
            producer_backoff_multiplier: 2,
            request_bytes_max: 136_314_880,
            drain_max: Duration::from_secs(30),
            certificate: None,
            tls: tls::Settings::default(),
            certificate_watch: Duration::from_secs(3600),
            delay_levels_ms: None,
            heartbeat_period: Duration::from_secs(20),
            change_log_level: None,
        }
    }
}

/// What cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("the proxy's configuration is not a JSON object: {0}")]
    NotJson(String),
    #[error("unknown key `{key}`{}", suggestion.as_ref().map(|s| format!(", did you mean `{s}`?")).unwrap_or_default())]
    Unknown { key: String, suggestion: Option<String> },
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    #[error("`{key}` cannot be `{value}`: {reason}")]
    Unusable { key: String, value: String, reason: String },
}

/// Keys of ours, which no stock file has.
const OWN_KEYS: [&str; 2] = ["bindAddress", "listeners"];

/// Where clients come in unless told otherwise.
const PORT: u16 = 8081;
const REMOTING_PORT: u16 = 8080;

impl Config {
    /// Reads an `rmq-proxy.json` with some pairs over it. Also gives the keys that change nothing here.
    pub fn read(
        text: &str,
        over: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(Self, Vec<String>), ConfigError> {
        let text = if text.trim().is_empty() { "{}" } else { text };
        let file: BTreeMap<String, Value> =
            serde_json::from_str(text).map_err(|error| ConfigError::NotJson(error.to_string()))?;
        let mut values: BTreeMap<String, String> = BTreeMap::new();
        for (key, value) in file {
            let value = match value {
                Value::String(text) => text,
                Value::Null => String::new(),
                other => other.to_string(),
            };
            values.insert(key, value);
        }
        values.extend(over);
        let (tls, values): (BTreeMap<_, _>, BTreeMap<_, _>) =
            values.into_iter().partition(|(key, _)| key.starts_with("tls."));
        let tls = tls::Settings::read(tls)?;
        let without_effect = known(&values)?;
        let config = Values(values).config()?;
        Ok((Config { tls, ..config }, without_effect))
    }
}

/// Refuses keys nobody knows; gives those that change nothing here although they were changed.
fn known(values: &BTreeMap<String, String>) -> Result<Vec<String>, ConfigError> {
    let rows: Vec<[&str; 4]> = KEYS
        .lines()
        .map(|line| {
            let mut columns = line.split('\t');
            std::array::from_fn(|_| columns.next().unwrap_or_default())
        })
        .collect();
    let mut without_effect = Vec::new();
    for (key, value) in values {
        if OWN_KEYS.contains(&key.as_str()) {
            continue;
        }
        let Some([_, _, default, effect]) = rows.iter().find(|[name, ..]| name == key) else {
            let names = rows.iter().map(|[name, ..]| *name).chain(OWN_KEYS);
            let suggestion = closest(names, key).map(str::to_owned);
            let key = key.chars().take(100).collect();
            return Err(ConfigError::Unknown { key, suggestion });
        };
        if *effect != "start" && value != default {
            without_effect.push(key.clone());
        }
    }
    Ok(without_effect)
}

/// What was said, by key.
struct Values(BTreeMap<String, String>);

impl Values {
    fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    fn get<T: FromStr>(&self, key: &str, default: T) -> Result<T, ConfigError>
    where
        T::Err: std::fmt::Display,
    {
        let Some(value) = self.text(key) else { return Ok(default) };
        value.parse().map_err(|error: T::Err| unusable(key, value, &error))
    }

    fn millis(&self, key: &str, default: Duration) -> Result<Duration, ConfigError> {
        let default = u64::try_from(default.as_millis()).unwrap_or(u64::MAX);
        Ok(Duration::from_millis(self.get(key, default)?))
    }

    fn config(self) -> Result<Config, ConfigError> {
        let d = Config::default();
        let nameservers = self.text("namesrvAddr").unwrap_or_default().split(';');
        let nameservers = nameservers.map(str::trim).filter(|one| !one.is_empty());
        Ok(Config {
            cluster: self.get("rocketMQClusterName", d.cluster)?,
            name: self.get("proxyName", d.name)?,
            listeners: self.listeners()?,
            nameservers: nameservers.map(str::to_owned).collect(),
            body_bytes_max: self.get("maxMessageSize", d.body_bytes_max)?,
            refuse_empty_bodies: self.get("enableMessageBodyEmptyCheck", d.refuse_empty_bodies)?,
            user_properties_max: self.get("userPropertyMaxNum", d.user_properties_max)?,
            user_properties_bytes_max: self
                .get("maxUserPropertySize", d.user_properties_bytes_max)?,
            message_group_bytes_max: self.get("maxMessageGroupSize", d.message_group_bytes_max)?,
            delay_max_ms: self.get("maxDelayTimeMills", d.delay_max_ms)?,
            transaction_recovery_seconds_max: self
                .get("maxTransactionRecoverySecond", d.transaction_recovery_seconds_max)?,
            check_message_type: self.get("enableTopicMessageTypeCheck", d.check_message_type)?,
            invisible_default_ms: self.get("defaultInvisibleTimeMills", d.invisible_default_ms)?,
            invisible_on_receive_min_ms: self
                .get("minInvisibleTimeMillsForRecv", d.invisible_on_receive_min_ms)?,
            invisible_max_ms: self.get("maxInvisibleTimeMills", d.invisible_max_ms)?,
            auto_renew: self.get("enableProxyAutoRenew", d.auto_renew)?,
            client_silent_max: self.millis("channelExpiredTimeout", d.client_silent_max)?,
            renew_period: self
                .millis("renewSchedulePeriodMillis", d.renew_period)?
                .max(Duration::from_millis(1)),
            polling_max: self
                .millis("grpcClientConsumerMaxLongPollingTimeoutMillis", d.polling_max)?,
            polling_reserve: self.millis("longPollingReserveTimeInMillis", d.polling_reserve)?,
            receive_batch: self.get("grpcClientConsumerLongPollingBatchSize", d.receive_batch)?,
            producer_attempts: self.get("grpcClientProducerMaxAttempts", d.producer_attempts)?,
            producer_backoff_ms: (
                self.get("grpcClientProducerBackoffInitialMillis", d.producer_backoff_ms.0)?,
                self.get("grpcClientProducerBackoffMaxMillis", d.producer_backoff_ms.1)?,
            ),
            producer_backoff_multiplier: self
                .get("grpcClientProducerBackoffMultiplier", d.producer_backoff_multiplier)?,
            request_bytes_max: self.get("grpcMaxInboundMessageSize", d.request_bytes_max)?,
            drain_max: Duration::from_secs(
                self.get("grpcShutdownTimeSeconds", d.drain_max.as_secs())?,
            ),
            certificate: self.certificate(),
            tls: d.tls,
            certificate_watch: self.millis("tlsCertWatchIntervalMs", d.certificate_watch)?,
            delay_levels_ms: self.delay_levels()?,
            heartbeat_period: Duration::from_secs(
                self.get("transactionHeartbeatPeriodSecond", d.heartbeat_period.as_secs())?,
            ),
            change_log_level: None,
        })
    }

    fn listeners(&self) -> Result<Vec<Listener>, ConfigError> {
        if let Some(text) = self.text("listeners") {
            let named: Result<Vec<Listener>, _> = serde_json::from_str(text);
            return named.map_err(|error| unusable("listeners", text, &error));
        }
        let address = self.get("bindAddress", IpAddr::V4(Ipv4Addr::LOCALHOST))?;
        let bind = SocketAddr::new(address, self.get("grpcServerPort", PORT)?);
        let port = self.get("remotingListenPort", REMOTING_PORT)?;
        let told = self.text("remotingAccessAddr").map(|host| format!("{host}:{port}"));
        let grpc = Listener { name: "grpc".to_owned(), bind, advertise: None, optional: false };
        let remoting = Listener {
            name: "remoting".to_owned(),
            bind: SocketAddr::new(address, port),
            advertise: told,
            optional: port == REMOTING_PORT,
        };
        // Either language is spoken at either.
        Ok(if bind == remoting.bind { vec![grpc] } else { vec![grpc, remoting] })
    }

    fn certificate(&self) -> Option<(PathBuf, PathBuf)> {
        Some((self.text("tlsCertPath")?.into(), self.text("tlsKeyPath")?.into()))
    }

    fn delay_levels(&self) -> Result<Option<Vec<i64>>, ConfigError> {
        if !self.get("useDelayLevel", false)? {
            return Ok(None);
        }
        const LEVELS: &str = "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h";
        let levels = self.text("messageDelayLevel").unwrap_or(LEVELS);
        let level = |text: &str| {
            let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
            let unit_ms = match unit {
                "s" => 1000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return None,
            };
            digits.parse::<i64>().ok()?.checked_mul(unit_ms)
        };
        let levels_ms: Option<Vec<i64>> = levels.split_whitespace().map(level).collect();
        let reason = "delay levels are numbers with s, m, h or d";
        levels_ms.map(Some).ok_or_else(|| unusable("messageDelayLevel", levels, &reason))
    }
}

fn unusable(key: &str, value: &str, reason: &dyn std::fmt::Display) -> ConfigError {
    let value = value.chars().take(100).collect();
    ConfigError::Unusable { key: key.to_owned(), value, reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stock_file_is_read_as_it_is() {
        let text = r#"{"rocketMQClusterName":"DefaultCluster","grpcServerPort":18081,
            "maxMessageSize":"1024","enableTopicMessageTypeCheck":false,"grpcThreadPoolNums":40,
            "namesrvAddr":"a:1; b:2"}"#;
        let (config, without_effect) = Config::read(text, []).unwrap();
        assert_eq!(config.listeners[0].bind, "127.0.0.1:18081".parse().unwrap());
        assert_eq!((config.body_bytes_max, config.check_message_type), (1024, false));
        assert_eq!(config.nameservers, ["a:1", "b:2"]);
        assert_eq!(without_effect, ["grpcThreadPoolNums"]);
    }

    #[test]
    fn every_default_written_down_is_the_default() {
        let over = KEYS.lines().map(|line| {
            let mut columns = line.split('\t');
            let key = columns.next().unwrap().to_owned();
            (key, columns.nth(1).unwrap_or_default().to_owned())
        });
        let (written, without_effect) = Config::read("", over).unwrap();
        let (silent, _) = Config::read("", []).unwrap();
        assert_eq!(format!("{written:?}"), format!("{silent:?}"));
        assert!(without_effect.is_empty(), "{without_effect:?}");
    }

    #[test]
    fn what_is_wrong_is_said_in_a_sentence() {
        for (text, sentence) in [
            ("[]", "the proxy's configuration is not a JSON object"),
            (
                r#"{"grpcServerport":1}"#,
                "unknown key `grpcServerport`, did you mean `grpcServerPort`?",
            ),
            (r#"{"grpcServerPort":"x"}"#, "`grpcServerPort` cannot be `x`"),
            (
                r#"{"useDelayLevel":true,"messageDelayLevel":"1y"}"#,
                "`messageDelayLevel` cannot be `1y`",
            ),
            (r#"{"listeners":[{"bid":"x"}]}"#, "`listeners` cannot be"),
        ] {
            let error = Config::read(text, []).unwrap_err().to_string();
            assert!(error.starts_with(sentence), "{error}");
        }
    }

    #[test]
    fn several_networks_have_a_listener_each() {
        let text = r#"{"listeners":[{"name":"in","bind":"127.0.0.1:1"},
            {"name":"out","bind":"127.0.0.1:2","advertise":"mq.example:8081"}]}"#;
        let (config, _) = Config::read(text, []).unwrap();
        assert_eq!(config.listeners.len(), 2);
        assert_eq!(config.listeners[1].advertise.as_deref(), Some("mq.example:8081"));
    }
}
