//! Figures of the broker as a whole.
//!
//! They carry stock's names, all of them, for a tool may read a figure without asking whether it is there:
//! rocketmq-exporter shows nothing of a broker if one is missing. What describes the inside of a JVM and has
//! no counterpart is what an idle stock broker says.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::body::{HARuntimeInfo, KVTable};
use protocol::frame::Command;
use protocol::header::replication::{ExchangeHaInfo, ExchangeHaInfoReply};
use protocol::header::stats::ViewBrokerStatsData;
use protocol::json::java_double;
use protocol::language::version;
use protocol::name;
use remoting::clock;
use store::{Durations, Figures};

use super::{body, failed};
use crate::answer::{Context, Outcome};
use crate::broker::Broker;
use crate::offsets::requests::unreadable;
use crate::stats::Sums;

type Table = BTreeMap<String, String>;

/// Code 28.
pub fn info(context: &Context<'_>) -> Outcome {
    let broker = context.broker;
    let now_ms = clock::now_ms();
    let figures = broker.store.figures();
    let mut table = Table::new();
    about(broker, &mut table, now_ms);
    puts(broker, &mut table, &figures, now_ms);
    gets(broker, &mut table, now_ms);
    days(broker, &mut table, now_ms);
    delays(broker, &mut table);
    waiting(broker, &mut table);
    outside(&mut table);
    let earliest = broker.store.store_time_of(figures.min_position).map_err(unreadable)?;
    put(&mut table, "earliestMessageTimeStamp", earliest.unwrap_or(-1));
    disk(broker, &mut table, &figures);
    body(&KVTable { table })
}

fn put(table: &mut Table, name: &str, value: impl ToString) {
    table.insert(name.to_owned(), value.to_string());
}

fn about(broker: &Broker, table: &mut Table, now_ms: i64) {
    put(table, "bootTimestamp", broker.started_ms);
    let up = (now_ms - broker.started_ms).max(0) / 1000;
    let (days, hours, minutes, seconds) = (up / 86_400, up / 3600 % 24, up / 60 % 60, up % 60);
    let runtime = format!("[ {days} days, {hours} hours, {minutes} minutes, {seconds} seconds ]");
    put(table, "runtime", runtime);
    put(table, "brokerActive", !broker.shutdown.is_cancelled());
    put(table, "brokerVersionDesc", version::describe(version::OURS));
    // Stock says the number no longer; rocketmq-exporter still reads it.
    put(table, "brokerVersion", version::OURS);
    let from = broker.config.load().accept_sends_from_ms;
    put(table, "startAcceptSendRequestTimeStamp", from);
}

fn puts(broker: &Broker, table: &mut Table, figures: &Figures, now_ms: i64) {
    let flow = &broker.stats.flow;
    let sums = flow.sums(now_ms);
    put(table, "putMessageTimesTotal", sums.put);
    put(table, "putMessageFailedTimes", sums.put_failed);
    put(table, "putMessageSizeTotal", sums.put_bytes);
    let average = sums.put_bytes as f64 / sums.put.max(1) as f64;
    put(table, "putMessageAverageSize", java_double(average));
    put(table, "putTps", rates(broker, now_ms, |sums| sums.put));
    let appends = &figures.appends;
    put(table, "putMessageEntireTimeMax", appends.max_ns / 1_000_000);
    put(table, "putMessageDistributeTime", distribution(appends));
    let millis = |share| appends.quantile_ns(share) as f64 / 1e6;
    put(table, "putLatency99", format!("{:.2}", millis(0.99)));
    put(table, "putLatency999", format!("{:.2}", millis(0.999)));
}

fn gets(broker: &Broker, table: &mut Table, now_ms: i64) {
    put(table, "getFoundTps", rates(broker, now_ms, |sums| sums.found));
    put(table, "getMissTps", rates(broker, now_ms, |sums| sums.missed));
    put(table, "getTotalTps", rates(broker, now_ms, |sums| sums.found + sums.missed));
    put(table, "getTransferredTps", rates(broker, now_ms, |sums| sums.got));
}

/// Over ten seconds, a minute, ten minutes.
fn rates(broker: &Broker, now_ms: i64, what: fn(&Sums) -> u64) -> String {
    let rate = |seconds| java_double(broker.stats.flow.rate(now_ms, seconds, what));
    format!("{} {} {}", rate(10), rate(60), rate(600))
}

/// How many appends took how long, in stock's classes. The store counts by powers of two; each of its
/// classes goes where it ends.
fn distribution(appends: &Durations) -> String {
    const CLASSES: [(&str, u64); 13] = [
        ("[<=0ms]", 1),
        ("[0~10ms]", 10),
        ("[10~50ms]", 50),
        ("[50~100ms]", 100),
        ("[100~200ms]", 200),
        ("[200~500ms]", 500),
        ("[500ms~1s]", 1000),
        ("[1~2s]", 2000),
        ("[2~3s]", 3000),
        ("[3~4s]", 4000),
        ("[4~5s]", 5000),
        ("[5~10s]", 10_000),
        ("[10s~]", u64::MAX),
    ];
    let mut counts = [0; CLASSES.len()];
    for (bucket, count) in appends.counts.iter().enumerate() {
        let ends = Duration::from_nanos(1 << bucket).as_millis() as u64;
        counts[CLASSES.iter().position(|(_, below)| ends < *below).unwrap_or(12)] += count;
    }
    let classes = CLASSES.iter().zip(counts);
    classes.map(|((class, _), count)| format!("{class}:{count} ")).collect()
}

/// Messages sent and got until now, this morning, yesterday morning.
fn days(broker: &Broker, table: &mut Table, now_ms: i64) {
    let now = broker.stats.flow.sums(now_ms);
    let (yesterday, today) = broker.stats.flow.mornings();
    for (when, sums) in
        [("YesterdayMorning", yesterday), ("TodayMorning", today), ("TodayNow", now)]
    {
        put(table, &format!("msgPutTotal{when}"), sums.sent);
        put(table, &format!("msgGetTotal{when}"), sums.got);
    }
}

/// How far each delay level is delivered, and how far it reaches.
fn delays(broker: &Broker, table: &mut Table) {
    for (level, delivered) in broker.delayed.lock().iter() {
        let queue = broker.store.find_queue(name::SCHEDULE_TOPIC, level - 1);
        let end = queue.map_or(0, |queue| broker.store.max_offset(queue));
        put(table, &format!("scheduleMessageOffset_{level}"), format!("{delivered},{end}"));
    }
}

/// What waits for a thread, for an index or for a timer: a request is served where it arrives, the log
/// is indexed as it is written, and there is no timer wheel, so that nothing does.
/// The capacities are those that are configured, so that who divides by them gets a share.
fn waiting(broker: &Broker, table: &mut Table) {
    let values = &broker.config.load().values;
    for pool in ["send", "pull", "litePull", "query", "ack"] {
        let capacity = format!("{pool}ThreadPoolQueueCapacity");
        put(table, &capacity, &values[&capacity]);
        put(table, &format!("{pool}ThreadPoolQueueSize"), 0);
        put(table, &format!("{pool}ThreadPoolQueueHeadWaitTimeMills"), 0);
    }
    put(table, "EndTransactionQueueSize", 0);
    let capacity = &values["endTransactionPoolQueueCapacity"];
    put(table, "EndTransactionThreadPoolQueueCapacity", capacity);
    for name in ["dispatchBehindBytes", "pageCacheLockTimeMills"] {
        put(table, name, 0);
    }
    for name in ["timerReadBehind", "timerOffsetBehind", "timerCongestNum"] {
        put(table, name, 0);
    }
    for name in ["timerEnqueueTps", "timerDequeueTps"] {
        put(table, name, "0.0");
    }
}

/// Buffers between threads and outside a heap, which we do without, and the time of reads, which we do not take.
fn outside(table: &mut Table) {
    put(table, "dispatchMaxBuffer", 0);
    put(table, "getMessageEntireTimeMax", 0);
    put(table, "remainTransientStoreBufferNumbs", i32::MAX);
}

fn disk(broker: &Broker, table: &mut Table, figures: &Figures) {
    put(table, "commitLogMinOffset", figures.min_position);
    put(table, "commitLogMaxOffset", figures.appended_position);
    let unflushed = figures.appended_position.saturating_sub(figures.durable_position);
    put(table, "remainHowManyDataToFlush", readable_bytes(unflushed));
    let Some(room) = figures.room else { return };
    // As stock: percent, rounded up.
    let ratio = java_double((room.used_ratio() * 100.0).ceil() / 100.0);
    let config = broker.config.load();
    let log = config.commit_log.clone().unwrap_or_else(|| config.store_root.join("commitlog"));
    put(table, &format!("commitLogDiskRatio_{}", log.display()), &ratio);
    put(table, "commitLogDiskRatio", &ratio);
    put(table, "consumeQueueDiskRatio", &ratio);
    let (total, free) = (readable_bytes(room.total_bytes), readable_bytes(room.available_bytes));
    put(table, "commitLogDirCapacity", format!("Total : {total}, Free : {free}."));
}

/// `1536` as `1.5 KiB`.
fn readable_bytes(bytes: u64) -> String {
    let mut units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].into_iter();
    let mut value = bytes as f64;
    let mut unit = "B";
    while value >= 1024.0
        && let Some(next) = units.next()
    {
        (value, unit) = (value / 1024.0, next);
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

/// Code 315.
pub fn counter(context: &Context<'_>) -> Outcome {
    let ViewBrokerStatsData { stats_name, stats_key } = context.header()?;
    match context.broker.stats.find(&stats_name, &stats_key) {
        Some(counter) => body(&counter.rates(clock::now_ms())),
        None => Err(failed(format!("The stats <{stats_name}> <{stats_key}> not exist"))),
    }
}

/// Code 906: where a replica would find its master.
pub fn exchange_ha_info(context: &Context<'_>) -> Outcome {
    let request: ExchangeHaInfo = context.header()?;
    let broker = context.broker;
    if let Some(master) = request.master_ha_address {
        return Err(failed(format!("this broker is a master and cannot follow {master}")));
    }
    let config = broker.config.load();
    let address = std::net::SocketAddr::new(config.advertised_ip, config.ha_port);
    Ok(Command::reply(&ExchangeHaInfoReply {
        master_ha_address: Some(address.to_string()),
        master_flush_offset: Some(broker.store.durable_position().cast_signed()),
        master_address: Some(broker.store_host.to_string()),
    }))
}

/// Code 907: a master whom nobody follows.
pub fn ha_status(context: &Context<'_>) -> Outcome {
    let end = context.broker.store.appended_position().cast_signed();
    body(&HARuntimeInfo { master: true, master_commit_log_max_offset: end, ..Default::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_as_stock_writes_them() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (252 << 30, "252.0 GiB"),
        ] {
            assert_eq!(readable_bytes(bytes), text);
        }
    }

    #[test]
    fn every_append_is_in_one_class() {
        let mut counts = [0; 40];
        counts[10] = 5;
        counts[20] = 3;
        counts[24] = 2;
        counts[39] = 1;
        let text = distribution(&Durations { counts, sum_ns: 0, max_ns: 0 });
        assert!(text.starts_with("[<=0ms]:5 [0~10ms]:3 [10~50ms]:2 "), "{text}");
        assert!(text.ends_with("[5~10s]:0 [10s~]:1 "), "{text}");
    }
}
