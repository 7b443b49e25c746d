//! What a `namesrv.conf` may say, what it says, and how a running nameserver is told otherwise.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use protocol::java_properties;
use remoting::settings::Kind::{Flag, Int, Long, Text};
use remoting::settings::{self, Accepted, Problem, Problems, Setting};
use remoting::tls;

/// Every key of a stock nameserver's configuration file.
#[rustfmt::skip]
pub static KEYS: &[Setting] = &[
    Setting::new("bindAddress", Text, "127.0.0.1"),
    Setting::new("configBlackList", Text, "configBlackList;configStorePath;kvConfigPath"),
    Setting::new("configStorePath", Text, "").unset(),
    Setting::new("deleteTopicWithBrokerRegistration", Flag, "false"),
    Setting::new("enableAllTopicList", Flag, "true"),
    Setting::new("enableTopicList", Flag, "true"),
    Setting::new("kvConfigPath", Text, "").unset(),
    Setting::new("listenPort", Int, "9876"),
    Setting::new("needWaitForService", Flag, "false"),
    Setting::new("notifyMinBrokerIdChanged", Flag, "false"),
    Setting::new("orderMessageEnable", Flag, "false"),
    Setting::new("returnOrderTopicConfigToBroker", Flag, "true"),
    Setting::new("scanNotActiveBrokerInterval", Long, "5000"),
    Setting::new("supportActingMaster", Flag, "false"),
    Setting::new("waitSecondsForService", Int, "45"),

    Setting::without_effect("clientRequestThreadPoolNums", Int, "8"),
    Setting::without_effect("clientRequestThreadPoolQueueCapacity", Int, "50000"),
    Setting::without_effect("clusterTest", Flag, "false"),
    Setting::without_effect("defaultThreadPoolNums", Int, "16"),
    Setting::without_effect("defaultThreadPoolQueueCapacity", Int, "10000"),
    Setting::without_effect("enableControllerInNamesrv", Flag, "false"),
    Setting::without_effect("enableShutdownGracefully", Flag, "false"),
    Setting::without_effect("productEnvName", Text, "center"),
    Setting::without_effect("rocketmqHome", Text, "").unset(),
    Setting::without_effect("serverAsyncSemaphoreValue", Int, "64"),
    Setting::without_effect("serverCallbackExecutorThreads", Int, "0"),
    Setting::without_effect("serverChannelMaxIdleTimeSeconds", Int, "120"),
    Setting::without_effect("serverNettyWorkerGroupEnable", Flag, "true"),
    Setting::without_effect("serverOnewaySemaphoreValue", Int, "256"),
    Setting::without_effect("serverPooledByteBufAllocatorEnable", Flag, "true"),
    Setting::without_effect("serverSelectorThreads", Int, "3"),
    Setting::without_effect("serverSocketBacklog", Int, "1024"),
    Setting::without_effect("serverSocketRcvBufSize", Int, "0"),
    Setting::without_effect("serverSocketSndBufSize", Int, "0"),
    Setting::without_effect("serverWorkerThreads", Int, "8"),
    Setting::without_effect("shutdownWaitTimeSeconds", Int, "30"),
    Setting::without_effect("unRegisterBrokerQueueCapacity", Int, "3000"),
    Setting::without_effect("useEpollNativeSelector", Flag, "false"),
    Setting::without_effect("writeBufferHighWaterMark", Int, "0"),
    Setting::without_effect("writeBufferLowWaterMark", Int, "0"),

    // Of the client that the stock nameserver has for pushing; not shown unless set.
    Setting::without_effect("channelNotActiveInterval", Long, "").unset(),
    Setting::without_effect("clientAsyncSemaphoreValue", Int, "").unset(),
    Setting::without_effect("clientCallbackExecutorThreads", Int, "").unset(),
    Setting::without_effect("clientChannelMaxIdleTimeSeconds", Int, "").unset(),
    Setting::without_effect("clientCloseSocketIfTimeout", Flag, "").unset(),
    Setting::without_effect("clientOnewaySemaphoreValue", Int, "").unset(),
    Setting::without_effect("clientPooledByteBufAllocatorEnable", Flag, "").unset(),
    Setting::without_effect("clientSocketRcvBufSize", Int, "").unset(),
    Setting::without_effect("clientSocketSndBufSize", Int, "").unset(),
    Setting::without_effect("clientWorkerThreads", Int, "").unset(),
    Setting::without_effect("connectTimeoutMillis", Int, "").unset(),
    Setting::without_effect("disableCallbackExecutor", Flag, "").unset(),
    Setting::without_effect("disableNettyWorkerGroup", Flag, "").unset(),
    Setting::without_effect("enableReconnectForGoAway", Flag, "").unset(),
    Setting::without_effect("maxReconnectIntervalTimeSeconds", Long, "").unset(),
    Setting::without_effect("scanAvailableNameSrv", Flag, "").unset(),
    Setting::without_effect("socksProxyConfig", Text, "").unset(),
    Setting::new("useTLS", Flag, "").unset(),
];

/// Keys that nobody may change over the network, whatever `configBlackList` says.
const PROTECTED: &[&str] = &["configBlackList", "configStorePath", "kvConfigPath", "rocketmqHome"];

/// How a nameserver is to behave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Every known key with its value, as shown to who asks (319).
    values: BTreeMap<&'static str, String>,
    pub listen: SocketAddr,
    pub kv_config_path: PathBuf,
    /// Where changes made over the network are kept.
    pub config_store_path: PathBuf,
    pub accept_all_topic_list: bool,
    pub accept_topic_list: bool,
    pub delete_topic_with_broker_registration: bool,
    pub notify_min_broker_id_changed: bool,
    pub order_message_enable: bool,
    pub return_order_topic_config_to_broker: bool,
    pub support_acting_master: bool,
    /// How long after its start it knows too little to answer for routes.
    pub wait_ms: i64,
    pub scan_interval_ms: u64,
    pub tls: tls::Settings,
}

/// A configuration that cannot be used as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error(transparent)]
    Keys(#[from] Problems),
    #[error("`{0}` is not an IP address to listen on")]
    BindAddress(String),
    #[error("`listenPort` must be between 0 and 65535, not {0}")]
    ListenPort(String),
    #[error("`{0}` is not built in: leave it out or set it to false")]
    NotBuiltIn(&'static str),
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
}

/// A change that is not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotChanged {
    #[error("Can not update config in black list.")]
    Protected,
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl Config {
    /// The defaults, with what must be kept in `data`.
    pub fn new(data: &Path) -> Self {
        Self::from_values(defaults(data)).expect("the defaults are usable")
    }

    /// What the text of a `namesrv.conf` says, and which of its keys change nothing here.
    pub fn read(text: &str, data: &Path) -> Result<(Self, Vec<&'static str>), Refused> {
        let pairs = java_properties::read(text).into_iter();
        let (tls, given): (BTreeMap<_, _>, BTreeMap<_, _>) =
            pairs.partition(|(key, _)| key.starts_with("tls."));
        let mut tls = tls::Settings::read(tls)?;
        let accepted = settings::check(KEYS, &given)?;
        let mut values = defaults(data);
        values.extend(accepted.values);
        let config = Self::from_values(values)?;
        tls.client_enabled |= config.tls.client_enabled;
        Ok((Self { tls, ..config }, accepted.without_effect))
    }

    /// This configuration with some values changed, as asked for over the network (318).
    pub fn changed(&self, changes: &BTreeMap<String, String>) -> Result<Self, NotChanged> {
        let listed: Vec<&str> = self.values["configBlackList"].split(';').collect();
        let protected = |key: &str| PROTECTED.contains(&key) || listed.contains(&key);
        if changes.keys().any(|key| protected(key)) {
            return Err(NotChanged::Protected);
        }
        let Accepted { values: new, .. } = settings::check(KEYS, changes).map_err(Refused::from)?;
        let mut values = self.values.clone();
        values.extend(new);
        Ok(Self { tls: self.tls.clone(), ..Self::from_values(values)? })
    }

    /// This configuration as it is once a socket is bound.
    pub(crate) fn listening_on(mut self, address: SocketAddr) -> Self {
        self.values.insert("bindAddress", address.ip().to_string());
        self.values.insert("listenPort", address.port().to_string());
        self.listen = address;
        self
    }

    /// All keys and values, sorted.
    pub fn text(&self) -> String {
        java_properties::write(self.values.iter().map(|(key, value)| (*key, value.as_str())))
    }

    fn from_values(values: BTreeMap<&'static str, String>) -> Result<Self, Refused> {
        let flag = |key| values[key].eq_ignore_ascii_case("true");
        for key in ["clusterTest", "enableControllerInNamesrv"] {
            if flag(key) {
                return Err(Refused::NotBuiltIn(key));
            }
        }
        let address = &values["bindAddress"];
        let ip: IpAddr = address.parse().map_err(|_| Refused::BindAddress(address.clone()))?;
        let port = &values["listenPort"];
        let port = port.parse().map_err(|_| Refused::ListenPort(port.clone()))?;
        let wait_ms = number::<i64>(&values, "waitSecondsForService").saturating_mul(1000);
        Ok(Self {
            listen: SocketAddr::new(ip, port),
            kv_config_path: values["kvConfigPath"].clone().into(),
            config_store_path: values["configStorePath"].clone().into(),
            accept_all_topic_list: flag("enableAllTopicList"),
            accept_topic_list: flag("enableTopicList"),
            delete_topic_with_broker_registration: flag("deleteTopicWithBrokerRegistration"),
            notify_min_broker_id_changed: flag("notifyMinBrokerIdChanged"),
            order_message_enable: flag("orderMessageEnable"),
            return_order_topic_config_to_broker: flag("returnOrderTopicConfigToBroker"),
            support_acting_master: flag("supportActingMaster"),
            wait_ms: if flag("needWaitForService") { wait_ms } else { 0 },
            scan_interval_ms: number::<i64>(&values, "scanNotActiveBrokerInterval").max(10) as u64,
            tls: tls::Settings {
                client_enabled: values
                    .get("useTLS")
                    .is_some_and(|it| it.eq_ignore_ascii_case("true")),
                ..Default::default()
            },
            values,
        })
    }
}

fn defaults(data: &Path) -> BTreeMap<&'static str, String> {
    let mut values: BTreeMap<&'static str, String> = KEYS
        .iter()
        .filter_map(|setting| Some((setting.key, setting.default?.to_owned())))
        .collect();
    let folder = data.join("namesrv");
    values.insert("kvConfigPath", folder.join("kvConfig.json").display().to_string());
    values.insert("configStorePath", folder.join("namesrv.properties").display().to_string());
    values
}

fn number<T: FromStr>(values: &BTreeMap<&'static str, String>, key: &str) -> T {
    values[key].parse().ok().expect("numbers were looked over when they came in")
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self::Keys(Problems(vec![problem]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(Config, Vec<&'static str>), Refused> {
        Config::read(text, Path::new("/data"))
    }

    #[test]
    fn a_stock_file_is_accepted_and_its_thread_pools_are_named_once() {
        let text = "listenPort=9999\n# a comment\nserverWorkerThreads=32\nsupportActingMaster=true\n\
                    useTLS=true\ntls.server.mode=enforcing\nkvConfigPath=/elsewhere/kv.json\n";
        let (config, without_effect) = read(text).unwrap();
        assert_eq!(config.listen.port(), 9999);
        assert!(config.support_acting_master);
        assert_eq!(config.kv_config_path, Path::new("/elsewhere/kv.json"));
        assert!(config.tls.client_enabled);
        assert_eq!(config.tls.mode, tls::Mode::Enforcing);
        assert_eq!(without_effect, ["serverWorkerThreads"]);
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_a_sentence() {
        for (text, sentence) in [
            ("listenport=1", "unknown key `listenport`, did you mean `listenPort`?"),
            ("listenPort=70000", "`listenPort` must be between 0 and 65535, not 70000"),
            (
                "tls.server.modus=x",
                "unknown key `tls.server.modus`, did you mean `tls.server.mode`?",
            ),
            ("bindAddress=nowhere", "`nowhere` is not an IP address to listen on"),
            (
                "enableControllerInNamesrv=true",
                "`enableControllerInNamesrv` is not built in: leave it out or set it to false",
            ),
        ] {
            assert_eq!(read(text).unwrap_err().to_string(), sentence);
        }
    }

    #[test]
    fn what_is_shown_reads_back_as_the_same() {
        let (config, _) = read("scanNotActiveBrokerInterval=77\nproductEnvName=a b\n").unwrap();
        let (again, _) = read(&config.text()).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn protected_keys_stay_whatever_the_list_says() {
        let (config, _) = read("configBlackList=enableTopicList").unwrap();
        let change = |key: &str, value: &str| {
            config.changed(&BTreeMap::from([(key.to_owned(), value.to_owned())]))
        };
        for key in ["configBlackList", "configStorePath", "kvConfigPath", "rocketmqHome"] {
            assert_eq!(change(key, "x"), Err(NotChanged::Protected));
        }
        assert_eq!(change("enableTopicList", "false"), Err(NotChanged::Protected));
        assert!(!change("enableAllTopicList", "false").unwrap().accept_all_topic_list);
        let unknown = change("enableAllTopicLists", "false").unwrap_err().to_string();
        assert!(unknown.ends_with("did you mean `enableAllTopicList`?"), "{unknown}");
    }

    #[test]
    fn every_key_of_the_table_is_there_once() {
        let mut keys: Vec<&str> = KEYS.iter().map(|setting| setting.key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), KEYS.len());
        for setting in KEYS {
            let default = setting.default.unwrap_or("");
            assert!(
                setting.default.is_none() || settings::judge(KEYS, setting.key, default).is_ok(),
                "{} does not accept its own default",
                setting.key
            );
        }
    }
}
