//! A disk that is really full, and log files that are really old.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic and tell, in its helpers too"
)]

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use integration_tests::ask;
use integration_tests::cluster::{self, PATIENCE, Process, Standalone};
use integration_tests::wire::Wire;
use protocol::header::offset::{GetMaxOffset, GetMinOffset};
use protocol::header::pop::PopMessage;
use protocol::record::Record;
use protocol::reply::ReplyCode;
use remoting::clock;
use store::{Batch, Clock, NewMessage, Store};

const TOPIC: &str = "disk";
/// Of the file system that is filled.
const ROOM_MIB: usize = 160;

#[test]
fn a_full_disk_refuses_sends_serves_reads_and_is_over_when_there_is_room() {
    let data = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::at(data.path()) else { return };
    let mut server = disk.start();
    let mut wire = Wire::connect(server.broker).unwrap();
    wire.ask(&ask::topic(TOPIC, 1)).unwrap();
    let body = vec![b'x'; 64 * 1024];
    let mut sent = 0;
    let mut send = |wire: &mut Wire| {
        let reply = wire.call(ask::plain_send(TOPIC, 0, &body)).unwrap();
        sent += usize::from(reply.code == ReplyCode::Success.to_wire());
        (reply.code, sent)
    };
    (0..20).for_each(|_| assert_eq!(send(&mut wire).0, 0));
    // A group that is new could not be remembered on a full disk, and would be refused.
    assert_eq!(count(&mut wire), 20);
    // What was popped is something that a start has to write.
    assert_eq!(pop(&mut wire), 1);

    // Somebody else takes all there is, faster than the disk is looked at.
    let filler = disk.inside().join("filler");
    let mut file = File::create(&filler).unwrap();
    let mut fill = || {
        for size in [1 << 20, 4096] {
            let piece = vec![1; size];
            while file.write_all(&piece).is_ok() {}
        }
    };
    fill();
    let refused = (0..2000).map(|_| send(&mut wire).0).find(|code| *code != 0);
    assert_eq!(refused, Some(ReplyCode::ServiceNotAvailable.to_wire()));
    let (_, sent_by_then) = send(&mut wire);
    println!("{sent_by_then} messages were taken");

    // What is there can be read; an offset is remembered where the log has room for that, or refused.
    assert_eq!(count(&mut wire), sent_by_then);
    let consumed = ("readers".to_owned(), TOPIC.to_owned(), 0);
    let commit = wire.call(ask::request(&ask::update_offset(&consumed, 5))).unwrap();
    let kept = commit.code == ReplyCode::Success.to_wire();
    println!("an offset was {}", if kept { "kept" } else { "refused" });

    // It also starts like this, as often as it has to.
    for _ in 0..3 {
        server.process.kill();
        fill();
        server = disk.start();
        wire = Wire::connect(server.broker).unwrap();
        assert_eq!(count(&mut wire), sent_by_then);
        let told = wire.call(ask::request(&ask::query_offset(&consumed))).unwrap();
        let told = told.fields.get("offset").map(str::to_owned);
        assert!(!kept || told.as_deref() == Some("5"), "{told:?}");
        assert_ne!(send(&mut wire).0, 0, "it is full");
    }

    drop(file);
    std::fs::remove_file(&filler).unwrap();
    let started = clock::instant();
    while send(&mut wire).0 != 0 {
        assert!(started.elapsed() < PATIENCE, "{}", server.process.said());
    }
    let taken = send(&mut wire).1;
    assert_eq!(count(&mut wire), taken, "what was acknowledged is there, and nothing else");
    let said = server.process.said();
    assert!(!said.contains("panicked") && !said.contains("defect"), "{said}");
}

/// A small file system of its own, in a namespace of its own, as long as this is there.
struct SmallDisk<'a> {
    holder: Process,
    data: &'a Path,
}

impl<'a> SmallDisk<'a> {
    fn at(data: &'a Path) -> Option<Self> {
        let script = format!(
            "mount -t tmpfs -o size={ROOM_MIB}m small \"$0\" && echo mounted && exec sleep infinity"
        );
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-c", &script]).arg(data);
        let holder = Process::start(command).ok();
        let holder = holder.filter(|it| it.line(|line| (line == "mounted").then_some(())).is_ok());
        if holder.is_none() {
            println!("skipped: this needs namespaces in which a file system may be mounted");
        }
        Some(Self { holder: holder?, data })
    }

    fn start(&self) -> Standalone {
        let settings = [
            ("mappedFileSizeCommitLog", "1048576"),
            // So that the file system itself says so first.
            ("diskSpaceWarningLevelRatio", "100"),
            ("diskSpaceCleanForciblyRatio", "100"),
            ("diskMaxUsedSpaceRatio", "100"),
        ];
        let ours = Standalone::command(self.data, &settings);
        let mut command = Command::new("nsenter");
        command.args(["-U", "-m", "--preserve-credentials", "-t", &self.holder.id().to_string()]);
        command.arg(ours.get_program()).args(ours.get_args()).env("NO_COLOR", "1");
        Standalone::ready(Process::start(command).unwrap()).unwrap()
    }

    /// What is on it, as seen from here.
    fn inside(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.data.strip_prefix("/").unwrap())
    }
}

/// Takes a message, and leaves it hidden for long; how many there were.
fn pop(wire: &mut Wire) -> usize {
    let pop = PopMessage {
        consumer_group: "poppers".to_owned(),
        topic: TOPIC.to_owned(),
        queue_id: -1,
        max_msg_nums: 1,
        invisible_time: 3_600_000,
        poll_time: 0,
        born_time: 0,
        init_mode: 0,
        exp_type: None,
        exp: None,
        order: None,
        attempt_id: None,
    };
    let reply = wire.call(protocol::frame::Command::request(200_050, &pop)).unwrap();
    usize::from(reply.code == ReplyCode::Success.to_wire())
}

/// Messages that can be read, one after another.
fn count(wire: &mut Wire) -> usize {
    let consumed = ("readers".to_owned(), TOPIC.to_owned(), 0);
    let mut count = 0;
    loop {
        let reply = wire.call(ask::request(&ask::pull(&consumed, count as i64))).unwrap();
        let mut rest = reply.body.as_ref();
        if rest.is_empty() {
            return count;
        }
        while !rest.is_empty() {
            let (record, size) = Record::decode(rest).unwrap();
            record.check_body().unwrap();
            assert_eq!(record.queue_offset, count as i64);
            count += 1;
            rest = &rest[size..];
        }
    }
}

#[test]
fn log_files_older_than_messages_are_kept_go_at_the_hour_and_their_messages_with_them() {
    const AGE_MS: i64 = 80 * 3_600_000;
    let data = tempfile::tempdir().unwrap();
    let old = |body: &[u8], count| {
        let root = data.path().join("store");
        let now_ms = clock::now_ms() - AGE_MS;
        let settings = store::Config {
            segment_bytes: 1 << 20,
            ..store::Config::new(&root, Clock::new(clock::now_ms, || 0))
        };
        let store = Store::open(settings).unwrap();
        let queue = store.queue(TOPIC, 0).unwrap();
        for _ in 0..count {
            let mut batch = Batch::new();
            let host = SocketAddr::from(([127, 0, 0, 1], 1));
            let message = NewMessage {
                flag: 0,
                sys_flag: 0,
                born_timestamp: now_ms,
                born_host: host,
                store_host: host,
                reconsume_times: 0,
                prepared_transaction_offset: 0,
                body,
                properties: &[],
            };
            store.push(&mut batch, queue, &message).unwrap();
            store.append(&mut batch, now_ms).unwrap();
        }
        store.close().unwrap();
    };
    old(&[b'x'; 100_000], 95);
    let every_hour: Vec<String> = (0..24).map(|hour| format!("{hour:02}")).collect();
    let settings = [
        ("mappedFileSizeCommitLog", "1048576"),
        ("deleteWhen", &*every_hour.join(";")),
        ("fileReservedTime", "72"),
    ];
    let server = Standalone::start(data.path(), &settings).unwrap();
    let mut wire = Wire::connect(server.broker).unwrap();
    wire.ask(&ask::topic(TOPIC, 1)).unwrap();
    // A young message begins a file, which dates the one before it.
    let young = vec![b'y'; 100_000];
    for _ in 0..11 {
        assert_eq!(wire.call(ask::plain_send(TOPIC, 0, &young)).unwrap().code, 0);
    }
    let min = GetMinOffset { topic: TOPIC.to_owned(), queue_id: 0 };
    let max = GetMaxOffset { topic: TOPIC.to_owned(), queue_id: 0, committed: true };
    let started = clock::instant();
    // Ten messages a file; the first young one may share a file with old ones.
    while wire.ask(&min).unwrap().0.offset < 90 {
        assert!(started.elapsed() < PATIENCE * 3, "{}", server.process.said());
        cluster::a_moment();
    }
    assert_eq!(wire.ask(&max).unwrap().0.offset, 106);
    let consumed = ("readers".to_owned(), TOPIC.to_owned(), 0);
    let moved = wire.call(ask::request(&ask::pull(&consumed, 0))).unwrap();
    assert_eq!(moved.code, ReplyCode::PullOffsetMoved.to_wire());
    let from: i64 = moved.fields.get("nextBeginOffset").unwrap().parse().unwrap();
    let rest = wire.call(ask::request(&ask::pull(&consumed, from))).unwrap();
    assert_eq!(rest.code, ReplyCode::Success.to_wire());
    let log = std::fs::read_dir(data.path().join("store/commitlog")).unwrap().count();
    assert!(log <= 4, "{log} log files are left");
}
