//! What a client is told to do, from what it says of itself, the rules of its group, and our configuration.

use protocol::body::{GroupRetryPolicyType, SubscriptionGroupConfig};
use protocol::grpc::retry_policy::Strategy;
use protocol::grpc::settings::PubSub;
use protocol::grpc::{
    CustomizedBackoff, ExponentialBackoff, Language, Metric, Publishing, RetryPolicy, Settings,
    Subscription, Ua,
};

use super::time::duration;
use crate::config::Config;

/// Settings as they go back to the client; `group` are the rules of a consumer's group.
pub(super) fn merged(
    config: &Config,
    mut settings: Settings,
    group: Option<&SubscriptionGroupConfig>,
) -> Settings {
    match &mut settings.pub_sub {
        Some(PubSub::Publishing(publishing)) => {
            producer(config, publishing);
            settings.backoff_policy = Some(producer_backoff(config));
        }
        Some(PubSub::Subscription(subscription)) => {
            let rules = SubscriptionGroupConfig::default();
            let rules = group.unwrap_or(&rules);
            consumer(config, subscription, rules);
            let lists = settings.user_agent.as_ref().is_none_or(knows_lists);
            settings.backoff_policy = Some(consumer_backoff(rules, lists));
        }
        None => {}
    }
    settings.metric = Some(Metric { on: false, endpoints: None });
    settings
}

fn producer(config: &Config, publishing: &mut Publishing) {
    publishing.max_body_size = i32::try_from(config.body_bytes_max).unwrap_or(i32::MAX);
    publishing.validate_message_type = config.check_message_type;
}

fn producer_backoff(config: &Config) -> RetryPolicy {
    let (initial_ms, max_ms) = config.producer_backoff_ms;
    RetryPolicy {
        max_attempts: config.producer_attempts,
        strategy: Some(Strategy::ExponentialBackoff(ExponentialBackoff {
            initial: Some(duration(initial_ms)),
            max: Some(duration(max_ms)),
            multiplier: config.producer_backoff_multiplier as f32,
        })),
    }
}

fn consumer(config: &Config, subscription: &mut Subscription, rules: &SubscriptionGroupConfig) {
    subscription.fifo = Some(rules.consume_message_orderly);
    subscription.receive_batch_size = Some(config.receive_batch);
    let polling_ms = i64::try_from(config.polling_max.as_millis()).unwrap_or(i64::MAX);
    subscription.long_polling_timeout = Some(duration(polling_ms));
}

/// The Node client passes over a list of pauses and then asks for none at all, which is refused.
fn knows_lists(agent: &Ua) -> bool {
    agent.language() != Language::NodeJs
}

fn consumer_backoff(rules: &SubscriptionGroupConfig, lists: bool) -> RetryPolicy {
    let policy = &rules.group_retry_policy;
    let strategy = match policy.r#type {
        GroupRetryPolicyType::Exponential => {
            let pauses = policy.exponential_retry_policy.clone().unwrap_or_default();
            Strategy::ExponentialBackoff(ExponentialBackoff {
                initial: Some(duration(pauses.initial)),
                max: Some(duration(pauses.max)),
                multiplier: pauses.multiplier as f32,
            })
        }
        GroupRetryPolicyType::Customized => {
            let pauses = policy.customized_retry_policy.clone().unwrap_or_default();
            let next: Vec<_> = pauses.next.into_iter().map(duration).collect();
            if lists {
                Strategy::CustomizedBackoff(CustomizedBackoff { next })
            } else {
                let (initial, max) = (next.first().copied(), next.last().copied());
                Strategy::ExponentialBackoff(ExponentialBackoff { initial, max, multiplier: 2.0 })
            }
        }
    };
    RetryPolicy { max_attempts: attempts(rules), strategy: Some(strategy) }
}

/// How often a message is delivered to a group before it is a dead letter.
pub(super) fn attempts(rules: &SubscriptionGroupConfig) -> i32 {
    rules.retry_max_times.saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_producer_is_told_its_limits_and_how_to_retry() {
        let asked = Settings {
            pub_sub: Some(PubSub::Publishing(Publishing::default())),
            ..Settings::default()
        };
        let told = merged(&Config::default(), asked, None);
        let Some(PubSub::Publishing(publishing)) = told.pub_sub else { panic!("a producer") };
        assert_eq!((publishing.max_body_size, publishing.validate_message_type), (4 << 20, true));
        let backoff = told.backoff_policy.unwrap();
        assert_eq!(backoff.max_attempts, 3);
        assert!(matches!(backoff.strategy, Some(Strategy::ExponentialBackoff(_))));
    }

    #[test]
    fn a_client_that_knows_no_lists_of_pauses_is_told_growing_ones() {
        let asked = Settings {
            pub_sub: Some(PubSub::Subscription(Subscription::default())),
            user_agent: Some(Ua { language: Language::NodeJs.into(), ..Ua::default() }),
            ..Settings::default()
        };
        let told = merged(&Config::default(), asked, None).backoff_policy.unwrap();
        let Some(Strategy::ExponentialBackoff(pauses)) = told.strategy else { panic!("growing") };
        assert_eq!(pauses.initial, Some(duration(1_000)));
        assert_eq!(pauses.max, Some(duration(7_200_000)));
    }

    #[test]
    fn a_consumer_is_told_the_rules_of_its_group() {
        let asked = Settings {
            pub_sub: Some(PubSub::Subscription(Subscription::default())),
            ..Settings::default()
        };
        let rules = SubscriptionGroupConfig {
            consume_message_orderly: true,
            retry_max_times: 4,
            ..SubscriptionGroupConfig::default()
        };
        let told = merged(&Config::default(), asked, Some(&rules));
        let Some(PubSub::Subscription(subscription)) = told.pub_sub else { panic!("a consumer") };
        assert_eq!((subscription.fifo, subscription.receive_batch_size), (Some(true), Some(32)));
        let backoff = told.backoff_policy.unwrap();
        assert_eq!(backoff.max_attempts, 5);
        let Some(Strategy::CustomizedBackoff(pauses)) = backoff.strategy else { panic!("a list") };
        assert_eq!(pauses.next.len(), 18);
    }
}
