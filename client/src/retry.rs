//! How often to try, and how long to wait before trying again: as the server says.

use std::time::Duration;

use protocol::grpc::{self, retry_policy::Strategy};

/// The longest wait anyone is sent into.
const DELAY_MAX: Duration = Duration::from_secs(12 * 3600);

/// How often and after which pauses to try again.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Policy {
    pub(crate) attempts_max: u32,
    pub(crate) backoff: Backoff,
}

/// The pauses between attempts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Backoff {
    Exponential {
        initial: Duration,
        max: Duration,
        multiplier: f32,
    },
    /// The last one stays; not empty.
    Listed(Vec<Duration>),
}

impl Backoff {
    /// The pause after the attempt of this number; the first is 1.
    pub(crate) fn after(&self, attempt: u32) -> Duration {
        let failed = attempt.max(1) - 1;
        let pause = match self {
            Self::Exponential { initial, max, multiplier } => {
                let factor = f64::from(*multiplier).powi(i32::try_from(failed).unwrap_or(i32::MAX));
                let seconds = initial.as_secs_f64() * factor;
                Duration::try_from_secs_f64(seconds).unwrap_or(*max).min(*max)
            }
            Self::Listed(pauses) => {
                let at = (failed as usize).min(pauses.len().saturating_sub(1));
                pauses.get(at).copied().unwrap_or_default()
            }
        };
        pause.min(DELAY_MAX)
    }
}

impl Policy {
    /// The server's policy, over what was in force before.
    pub(crate) fn merged(&self, policy: Option<&grpc::RetryPolicy>) -> Self {
        let Some(policy) = policy else { return self.clone() };
        let given = u32::try_from(policy.max_attempts).ok().filter(|attempts| *attempts > 0);
        let backoff = match &policy.strategy {
            Some(Strategy::ExponentialBackoff(exponential)) => Backoff::Exponential {
                initial: duration(exponential.initial.as_ref()),
                max: duration(exponential.max.as_ref()),
                multiplier: if exponential.multiplier >= 1.0 {
                    exponential.multiplier
                } else {
                    1.0
                },
            },
            Some(Strategy::CustomizedBackoff(listed)) if !listed.next.is_empty() => {
                Backoff::Listed(listed.next.iter().map(|next| duration(Some(next))).collect())
            }
            _ => self.backoff.clone(),
        };
        Self { attempts_max: given.unwrap_or(self.attempts_max), backoff }
    }

    pub(crate) fn to_wire(&self) -> grpc::RetryPolicy {
        let strategy = match &self.backoff {
            Backoff::Exponential { initial, max, multiplier } => {
                Strategy::ExponentialBackoff(grpc::ExponentialBackoff {
                    initial: Some(to_wire(*initial)),
                    max: Some(to_wire(*max)),
                    multiplier: *multiplier,
                })
            }
            Backoff::Listed(pauses) => Strategy::CustomizedBackoff(grpc::CustomizedBackoff {
                next: pauses.iter().copied().map(to_wire).collect(),
            }),
        };
        let max_attempts = i32::try_from(self.attempts_max).unwrap_or(i32::MAX);
        grpc::RetryPolicy { max_attempts, strategy: Some(strategy) }
    }
}

/// A duration of the protocol; a negative one is none.
pub(crate) fn duration(duration: Option<&prost_types::Duration>) -> Duration {
    duration.and_then(|duration| Duration::try_from(*duration).ok()).unwrap_or_default()
}

pub(crate) fn to_wire(duration: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(duration).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn pauses_grow_to_their_maximum_and_stay() {
        let backoff = Backoff::Exponential { initial: MS(10), max: MS(1000), multiplier: 2.0 };
        let pauses = [(0, 10), (1, 10), (2, 20), (3, 40), (7, 640), (8, 1000), (u32::MAX, 1000)];
        for (attempt, pause) in pauses {
            assert_eq!(backoff.after(attempt), MS(pause), "{attempt}");
        }
        let listed = Backoff::Listed(vec![MS(1), MS(5)]);
        assert_eq!([listed.after(1), listed.after(2), listed.after(9)], [MS(1), MS(5), MS(5)]);
    }

    #[test]
    fn a_policy_of_the_server_that_makes_no_sense_leaves_the_old_one() {
        let old = Policy { attempts_max: 3, backoff: Backoff::Listed(vec![MS(1)]) };
        assert_eq!(old.merged(None), old);
        let empty = grpc::RetryPolicy {
            max_attempts: 0,
            strategy: Some(Strategy::CustomizedBackoff(grpc::CustomizedBackoff { next: vec![] })),
        };
        assert_eq!(old.merged(Some(&empty)), old);
        let negative = prost_types::Duration { seconds: -5, nanos: 0 };
        let next = vec![negative];
        let strategy = Some(Strategy::CustomizedBackoff(grpc::CustomizedBackoff { next }));
        let merged = old.merged(Some(&grpc::RetryPolicy { max_attempts: 17, strategy }));
        assert_eq!((merged.attempts_max, merged.backoff.after(1)), (17, Duration::ZERO));
    }

    #[test]
    fn a_policy_comes_back_as_it_was_told() {
        let backoff = Backoff::Exponential { initial: MS(10), max: MS(1000), multiplier: 2.0 };
        let policy = Policy { attempts_max: 3, backoff };
        let other = Policy { attempts_max: 1, backoff: Backoff::Listed(vec![MS(3)]) };
        assert_eq!(other.merged(Some(&policy.to_wire())), policy);
        assert_eq!(policy.merged(Some(&other.to_wire())), other);
    }
}
