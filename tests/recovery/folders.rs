//! Data folders that a broker cannot use: each gets one sentence that says what to do, an exit code, and is left as it was.

#![allow(clippy::unwrap_used, reason = "a helper that panics fails its test, which is what it is for")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};
use tests::broker_process::{BrokerOptions, BrokerProcess, binary};
use tests::crash::client::{Client, text};
use tests::crash::lab::{End, Lab, StorageUnderTest, Tamper};
use tests::crash::volume::{Access, FileSystem, Volume, is_without_mounts};
use tests::temp::TempDir;
use tests::wire::Field;

const PATIENCE: Duration = Duration::from_secs(30);
const MESSAGES: u64 = 300;
const BODY_BYTES: usize = 1000;
/// Small, so that the messages lie in several segments.
const TOPOLOGY: &str = "storage: {kind: log, config: {segment_bytes: 65536}}\n";

/// Every file below a folder with its contents and when they were changed; folders have none.
type Snapshot = BTreeMap<PathBuf, (Vec<u8>, SystemTime)>;

fn snapshot(folder: &Path) -> Snapshot {
    let mut all = Snapshot::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let about = fs::symlink_metadata(&path).unwrap();
            let contents = if about.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            if about.is_dir() {
                folders.push(path.clone());
            }
            all.insert(path, (contents, about.modified().unwrap()));
        }
    }
    all
}

fn start(folder: &TempDir, data: &Path) -> Result<BrokerProcess, String> {
    let topology = folder.write("topology.yaml", TOPOLOGY);
    BrokerOptions::default().topology(topology).argument("--data").argument(data.display().to_string()).start()
}

fn channel(broker: &BrokerProcess) -> Client {
    let mut client = Client::connect(broker.address()).unwrap();
    client.open(1).unwrap();
    client.call(1, "confirm.select", &[], "confirm.select-ok").unwrap();
    client
}

/// A folder with messages in several segments, and no broker on it.
fn fill(folder: &TempDir, data: &Path) {
    let broker = start(folder, data).unwrap();
    let mut client = channel(&broker);
    let durable = ("durable", Field::Bit(true));
    client.call(1, "queue.declare", &[("queue", text("q")), durable], "queue.declare-ok").unwrap();
    for number in 1..=MESSAGES {
        let properties = vec![("delivery-mode", Field::Number(2)), ("timestamp", Field::Number(number))];
        client.sender.publish(1, &[("routing-key", text("q"))], &properties, &body(number)).unwrap();
        client.receiver.wait_for(1, "basic.ack").unwrap();
    }
    drop(client);
    assert!(broker.terminate().unwrap().success());
}

fn body(number: u64) -> Vec<u8> {
    let mut body = vec![number as u8; BODY_BYTES];
    body[..8].copy_from_slice(&number.to_le_bytes());
    body
}

/// The numbers of all messages, each of which has to be as it was published.
fn numbers(broker: &BrokerProcess) -> Vec<u64> {
    let mut client = channel(broker);
    let mut numbers = Vec::new();
    loop {
        client.sender.call(1, "basic.get", &[("queue", text("q"))]).unwrap();
        let event = client.receiver.next_event().unwrap().unwrap();
        let Some((properties, found)) = event.content else { return numbers };
        let Some((_, Field::Number(number))) = properties.into_iter().find(|(name, _)| *name == "timestamp") else {
            panic!("a message without its number");
        };
        assert!(found == body(number), "message {number} has another body");
        numbers.push(number);
    }
}

/// Starts a broker on `data`, which has to refuse in one sentence with these parts, and to change nothing in `place`.
fn check_refused(place: &Path, data: &Path, parts: &[&str]) {
    let before = snapshot(place);
    let mut command = Command::new(binary().unwrap());
    command.args(["--listen", "127.0.0.1:0", "--http", "off", "--metrics", "off", "--log", "off", "--data"]).arg(data);
    let end = End::of(&mut command, PATIENCE).unwrap();
    let End { code, errors } = &end;
    assert!(code.is_some_and(|code| (64..=78).contains(&code)), "{end:?}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    for part in parts.iter().chain(&["broker: ", data.display().to_string().as_str()]) {
        assert!(errors.contains(part), "'{part}' is not in: {errors}");
    }
    assert!(before == snapshot(place), "something was changed in {}", place.display());
}

/// `broker store check` has to answer with this code, and to change nothing.
fn check_looked_at(data: &Path, code: i32, part: &str) {
    let before = snapshot(data);
    let output = Command::new(binary().unwrap()).args(["store", "check"]).arg(data).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(part), "'{part}' is not in: {said}");
    assert!(before == snapshot(data), "looking changed something");
}

fn names(data: &Path, prefix: &str, suffix: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = all.filter(|name| name.starts_with(prefix) && name.ends_with(suffix)).collect();
    names.sort();
    names.into_iter().map(|name| data.join(name)).collect()
}

/// A filled folder, which has `change` done to it.
fn changed(change: impl FnOnce(&Path)) -> (TempDir, PathBuf) {
    let folder = TempDir::new("folders");
    let data = folder.path().join("data");
    fill(&folder, &data);
    change(&data);
    (folder, data)
}

#[test]
fn folder_in_use_is_refused_with_the_process_that_has_it() {
    let folder = TempDir::new("folders");
    let data = folder.path().join("data");
    fill(&folder, &data);
    let broker = start(&folder, &data).unwrap();
    let process = format!("process {}", broker.pid());
    check_refused(
        &data,
        &data,
        &["in use by another broker", &process, "stop it, or give this one a folder of its own"],
    );
    check_looked_at(&data, 66, "in use by another broker");
    assert_eq!(numbers(&broker), (1..=MESSAGES).collect::<Vec<_>>());
}

#[test]
fn folder_of_a_newer_format_is_refused() {
    let (_folder, data) = changed(|data| {
        let newest = names(data, "checkpoint-", "").pop().unwrap();
        let mut bytes = fs::read(&newest).unwrap();
        bytes[8..12].copy_from_slice(&1000_u32.to_le_bytes());
        let checksum = crc32c(bytes[..12].iter().chain(&bytes[16..64]));
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        fs::write(newest, bytes).unwrap();
    });
    check_refused(&data, &data, &["newer format", "1000", "start the newer broker that wrote it"]);
    check_looked_at(&data, 66, "newer format");
}

/// The checksum of headers, bit by bit: a second opinion, and needed for a few bytes only.
fn crc32c<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    !bytes.fold(u32::MAX, |crc, byte| {
        let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
        (0..8).fold(crc ^ u32::from(*byte), step)
    })
}

#[test]
fn folder_with_foreign_files_is_refused_and_gets_no_file_of_ours() {
    let folder = TempDir::new("folders");
    let data = folder.path().join("somebody's");
    fs::create_dir_all(data.join("photos")).unwrap();
    fs::write(data.join("notes.txt"), "not a broker's").unwrap();
    check_refused(folder.path(), &data, &["notes.txt", "photos", "move them away, or name an empty folder"]);
    let (_folder, data) = changed(|data| fs::write(data.join("notes.txt"), "somebody's").unwrap());
    check_refused(&data, &data, &["notes.txt", "move them away"]);
    check_looked_at(&data, 66, "notes.txt");
}

#[test]
fn path_that_is_no_folder_is_refused() {
    let folder = TempDir::new("folders");
    let data = folder.write("file", "not a folder");
    check_refused(folder.path(), &data, &["--data"]);
    check_refused(folder.path(), &data.join("below"), &["--data"]);
}

#[test]
fn missing_segment_is_named_or_was_not_needed() {
    let folder = TempDir::new("folders");
    let data = folder.path().join("data");
    fill(&folder, &data);
    let segments = names(&data, "segment-", ".log");
    assert!(segments.len() > 4, "{segments:?}");
    let mut refused = 0;
    for (place, segment) in segments.iter().enumerate() {
        let copy = folder.path().join(format!("copy-{place}"));
        fs::create_dir(&copy).unwrap();
        for entry in fs::read_dir(&data).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
        let name = segment.file_name().unwrap();
        fs::remove_file(copy.join(name)).unwrap();
        match start(&folder, &copy) {
            Ok(broker) => assert_eq!(numbers(&broker), (1..=MESSAGES).collect::<Vec<_>>(), "without {name:?}"),
            Err(_) => {
                refused += 1;
                check_refused(&copy, &copy, &[name.to_str().unwrap(), "is missing", "put it back, or restore"]);
                check_looked_at(&copy, 66, "is missing");
            }
        }
    }
    assert!(refused + 1 >= segments.len(), "only the last segment may be empty, but {refused} were missed");
}

#[test]
fn folder_without_a_readable_checkpoint_is_refused() {
    let (_folder, data) = changed(|data| {
        for checkpoint in names(data, "checkpoint-", "") {
            let mut bytes = fs::read(&checkpoint).unwrap();
            bytes[40] ^= 1;
            fs::write(checkpoint, bytes).unwrap();
        }
    });
    check_refused(&data, &data, &["no checkpoint", "restore the folder from a backup", "broker store check"]);
    let (_folder, data) =
        changed(|data| names(data, "checkpoint-", "").iter().for_each(|name| fs::remove_file(name).unwrap()));
    check_refused(&data, &data, &["segments but no checkpoint", "put the checkpoint files back"]);
}

#[test]
fn segment_of_another_folder_is_refused() {
    let (_other, stranger) = changed(|_| {});
    let (_folder, data) = changed(|data| {
        let name = names(data, "segment-", ".log").swap_remove(1);
        fs::copy(stranger.join(name.file_name().unwrap()), &name).unwrap();
    });
    check_refused(&data, &data, &["belongs to another data folder", "put the right file in its place"]);
}

#[test]
fn flipped_bit_in_a_body_is_told_and_not_served() {
    const WANTED: u64 = 77;
    let (folder, data) = changed(|data| {
        let found = names(data, "segment-", ".log").into_iter().find_map(|name| {
            let bytes = fs::read(&name).unwrap();
            let place = bytes.windows(BODY_BYTES).position(|part| part == body(WANTED))?;
            Some((name, bytes, place))
        });
        let (name, mut bytes, place) = found.unwrap();
        bytes[place + BODY_BYTES / 2] ^= 4;
        fs::write(name, bytes).unwrap();
    });
    check_looked_at(&data, 65, "segment-");
    let broker = start(&folder, &data).unwrap();
    let expected: Vec<u64> = (1..=MESSAGES).filter(|number| *number != WANTED).collect();
    assert_eq!(numbers(&broker), expected);
    let log = broker.log();
    assert!(log.iter().any(|line| line.contains("\"ERROR\"") && line.contains("damage")), "the log says so: {log:?}");
    drop(broker);
    check_looked_at(&data, 65, "segment-");
}

#[test]
fn read_only_file_system_is_refused_and_can_be_looked_at() {
    if is_without_mounts() {
        return;
    }
    let folder = TempDir::new("folders");
    let volume = Volume::new(FileSystem::Ext4, 64).unwrap();
    let data = volume.path().join("data");
    fill(&folder, &data);
    volume.mount_again(Access::ReadOnly).unwrap();
    check_refused(&data, &data, &["cannot be written to", "mount the disk read-write, or name another folder"]);
    check_looked_at(&data, 0, "sound");
    check_refused(&data, &volume.path().join("new"), &["--data"]);
    volume.mount_again(Access::ReadWrite).unwrap();
    assert_eq!(numbers(&start(&folder, &data).unwrap()).len() as u64, MESSAGES);
}

#[test]
fn disk_without_room_for_the_first_files_is_refused() {
    if is_without_mounts() {
        return;
    }
    let folder = TempDir::new("folders");
    let volume = Volume::new(FileSystem::Ext4, 64).unwrap();
    let (data, filler) = (volume.path().join("data"), volume.path().join("filler"));
    fs::create_dir(&data).unwrap();
    let mut file = fs::File::create(&filler).unwrap();
    let full = std::io::copy(&mut std::io::repeat(1), &mut file).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    let error = start(&folder, &data).unwrap_err();
    assert!(error.contains("no room") && error.contains("free some, or name another folder"), "{error}");
    drop(file);
    fs::remove_file(filler).unwrap();
    fill(&folder, &data);
}

#[test]
fn disk_that_fails_at_the_start_is_told_from_a_folder_that_is_wrong() {
    let folder = TempDir::new("folders");
    let data = folder.path().join("data");
    for is_filled in [false, true] {
        if is_filled {
            fill(&folder, &data);
        }
        let lab = Lab::new(data.clone(), &[65536], &StorageUnderTest::Embedded);
        let mut random = plugin_api::testing::Random::new(1);
        let End { code, errors } =
            lab.start_in_vain(&mut random, Some(&Tamper::FailSyncs { from: 1 }), PATIENCE).unwrap();
        assert_eq!((code, errors.lines().count()), (Some(74), 1), "{errors}");
        assert!(errors.contains("Input/output error") && errors.contains("see to the disk"), "{errors}");
    }
}
