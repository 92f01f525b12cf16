//! One batch for the storage: what need not be written, and what is written once for many queues.

use std::sync::Arc;

use hashbrown::HashMap;
use plugin_api::storage::{Append as Record, MessageSeq, QueueKey, Settle};
use smallvec::{SmallVec, smallvec};

use super::{is_paged, stamp};
use crate::message::Message;
use crate::queue::{Append, Notice, Numbers, Outlet};

/// A message and the queue that wants it stored.
pub(super) type Pending = (QueueKey, Append);

/// What has become of a queue's messages of this batch.
#[derive(Debug, Default)]
struct Gone {
    /// The first place of the queue in this batch.
    lowest: u64,
    /// Settled places, sorted.
    ranges: Vec<(u64, u64)>,
    is_deleted: bool,
}

impl Gone {
    fn contains(&self, seq: u64) -> bool {
        let behind = self.ranges.partition_point(|&(first, _)| first <= seq);
        self.is_deleted || behind > 0 && self.ranges.get(behind - 1).is_some_and(|&(_, last)| seq <= last)
    }
}

/// Takes out what was settled, or whose queue was deleted, before it was written: a consumer has had it, so it is safe without the
/// disk. Settled ranges forget what they named of it.
pub(super) fn take_consumed(
    appends: &mut Vec<Pending>,
    settled: &mut Vec<Settle>,
    deleted: &[QueueKey],
) -> Vec<Pending> {
    if appends.is_empty() || settled.is_empty() && deleted.is_empty() {
        return Vec::new();
    }
    let mut queues: HashMap<QueueKey, Gone> = HashMap::new();
    for run in appends.chunk_by(|(a, _), (b, _)| a == b) {
        let Some((queue, _)) = run.first() else { continue };
        let lowest = run.iter().map(|(_, append)| append.place.seq).min().unwrap_or(0);
        let gone = queues.entry(*queue).or_insert_with(|| Gone { lowest, ..Gone::default() });
        gone.lowest = gone.lowest.min(lowest);
    }
    let mut is_any = false;
    settled.retain_mut(|range| {
        let Some(gone) = queues.get_mut(&range.queue).filter(|gone| range.last.0 >= gone.lowest) else { return true };
        is_any = true;
        gone.ranges.push((range.first.0, range.last.0));
        // Lasting messages are submitted in the order of their places, so nothing from the lowest on has been written. Others leave
        // memory in any order.
        if !is_paged(range.queue) {
            range.last = MessageSeq(gone.lowest.saturating_sub(1));
        }
        range.first <= range.last
    });
    for queue in deleted {
        if let Some(gone) = queues.get_mut(queue) {
            gone.is_deleted = true;
            is_any = true;
        }
    }
    if !is_any {
        return Vec::new();
    }
    for gone in queues.values_mut() {
        gone.ranges.sort_unstable();
    }
    let mut current: Option<(QueueKey, &Gone)> = None;
    let is_gone = |(queue, append): &mut Pending| {
        if current.is_none_or(|(of, _)| of != *queue) {
            current = queues.get(queue).map(|gone| (*queue, gone));
        }
        current.is_some_and(|(_, gone)| gone.contains(append.place.seq))
    };
    appends.extract_if(.., is_gone).collect()
}

/// A message with its places.
#[derive(Debug)]
pub(super) struct Group<'a> {
    append: &'a Append,
    /// When it came; 0 where no queue has to know.
    came_ms: u64,
    targets: Targets,
}

/// Nearly always one.
type Targets = SmallVec<[(QueueKey, MessageSeq); 1]>;

/// Queues that took a message within so long of each other count as having taken it at a time, at the latest of them.
const NEAR_MS: u64 = 20;

impl Group<'_> {
    /// Adds a place where the message came at this time. False if a record can have only one of the two times: what one queue puts out
    /// of memory later than another may have come there much later, and a queue in which nothing expires does not know when.
    fn join(&mut self, target: (QueueKey, MessageSeq), came_ms: u64) -> bool {
        let is_near = self.came_ms.abs_diff(came_ms) <= NEAR_MS;
        if !is_near && self.came_ms != 0 && came_ms != 0 {
            return false;
        }
        // Nothing may expire too early.
        self.came_ms = self.came_ms.max(came_ms);
        self.targets.push(target);
        true
    }
}

/// One record per message, however many queues hold it, unless they must remember different times.
pub(super) fn group<'a>(appends: impl Iterator<Item = &'a Pending> + Clone) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    let first = appends.clone().next().map(|(queue, _)| *queue);
    let is_one_queue = appends.clone().all(|(queue, _)| Some(*queue) == first);
    let count = if is_one_queue { 0 } else { appends.clone().count() };
    let mut place_of: HashMap<*const Message, usize> = HashMap::with_capacity(count);
    for (queue, append) in appends {
        let target = (*queue, MessageSeq(append.place.seq));
        let pointer = Arc::as_ptr(&append.message);
        let known = if is_one_queue { None } else { place_of.get(&pointer) };
        let group = known.and_then(|place| groups.get_mut(*place));
        if group.is_some_and(|group| group.join(target, append.came_ms)) {
            continue;
        }
        if !is_one_queue {
            place_of.insert(pointer, groups.len());
        }
        groups.push(Group { append, came_ms: append.came_ms, targets: smallvec![target] });
    }
    groups
}

/// A group as the storage takes it.
pub(super) fn record<'a>(group: &'a Group<'_>) -> Record<'a> {
    let message = &group.append.message;
    Record {
        targets: &group.targets,
        stamp: stamp::of(message, group.came_ms),
        exchange: message.exchange(),
        routing_key: message.routing_key(),
        properties: message.properties().raw(),
        body: message.body(),
    }
}

/// Tells publishers what became of their messages and gives their credit back, one notice per run of the same publisher.
pub(super) fn answer(appends: impl Iterator<Item = Pending>, is_taken: bool) {
    let mut run: Option<(Arc<dyn Outlet>, Vec<Numbers>, usize)> = None;
    let finish = |(outlet, numbers, bytes): (Arc<dyn Outlet>, Vec<Numbers>, usize)| {
        if !numbers.is_empty() {
            outlet.post(Notice::Confirmed { numbers, is_taken });
        }
        outlet.publishes_processed(bytes);
    };
    for (_, append) in appends {
        let Some(origin) = append.origin else { continue };
        if run.as_ref().is_some_and(|(outlet, ..)| !Arc::ptr_eq(outlet, &origin))
            && let Some(run) = run.take()
        {
            finish(run);
        }
        let (_, numbers, bytes) = run.get_or_insert_with(|| (origin, Vec::new(), 0));
        *bytes += append.message.weight();
        if append.number != 0 {
            Numbers::add(numbers, append.channel, append.number);
        }
    }
    if let Some(run) = run {
        finish(run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Parts;
    use crate::queue::{Place, Stored};
    use crate::store::key;

    fn append(queue: QueueKey, seq: u64, message: &Arc<Message>) -> Pending {
        let message = Arc::clone(message);
        let (place, stored) = (Place { level: 0, seq }, Stored::Lasting);
        (queue, Append { place, message, stored, came_ms: 1, is_synced: true, origin: None, channel: 1, number: 0 })
    }

    fn message(body: &str) -> Arc<Message> {
        Message::new(Parts { exchange: "x", routing_key: "k", properties: &[0, 0] }, body.as_bytes())
    }

    fn settle(queue: QueueKey, first: u64, last: u64) -> Settle {
        Settle { queue, first: MessageSeq(first), last: MessageSeq(last) }
    }

    fn seqs(appends: &[Pending]) -> Vec<u64> {
        appends.iter().map(|(_, append)| append.place.seq).collect()
    }

    #[test]
    fn a_message_for_many_queues_is_one_record() {
        let (one, other) = (message("1"), message("2"));
        let (first, second) = (QueueKey(1), QueueKey(2));
        let appends = [append(first, 5, &one), append(first, 6, &other), append(second, 9, &one)];
        let targets: Vec<Vec<(u64, u64)>> = group(appends.iter())
            .into_iter()
            .map(|group| group.targets.into_iter().map(|(queue, seq)| (queue.0, seq.0)).collect())
            .collect();
        assert_eq!(targets, [vec![(1, 5), (2, 9)], vec![(1, 6)]]);
    }

    #[test]
    fn a_record_has_one_time_which_is_right_for_all_its_queues() {
        let message = message("m");
        let at = |(queue, came_ms): (u64, u64)| {
            let (queue, append) = append(QueueKey(queue), 5, &message);
            (queue, Append { came_ms, ..append })
        };
        let check = |appends: &[(u64, u64)], expected: &[(u64, &[u64])]| {
            let appends: Vec<Pending> = appends.iter().copied().map(at).collect();
            let groups = group(appends.iter());
            let found: Vec<(u64, Vec<u64>)> = groups
                .iter()
                .map(|group| (record(group).stamp, group.targets.iter().map(|(queue, _)| queue.0).collect()))
                .collect();
            let expected: Vec<(u64, Vec<u64>)> =
                expected.iter().map(|(came_ms, queues)| (*came_ms, queues.to_vec())).collect();
            assert_eq!(found, expected, "{appends:?}");
        };
        // A queue without time to live puts messages out of memory without knowing when they came.
        check(&[(1, 0), (2, 1000), (3, 0)], &[(1000, &[1, 2, 3])]);
        check(&[(1, 1000), (2, 1001), (3, 1000)], &[(1001, &[1, 2, 3])]);
        check(&[(1, 1000), (2, 5000), (3, 5001)], &[(1000, &[1]), (5001, &[2, 3])]);
        check(&[(1, 0), (2, 0)], &[(0, &[1, 2])]);
    }

    #[test]
    fn what_was_consumed_before_it_was_written_is_not_written() {
        let (queue, other, message) = (QueueKey(1), QueueKey(2), message("m"));
        let mut appends: Vec<Pending> = (5..10).map(|seq| append(queue, seq, &message)).collect();
        appends.push(append(other, 7, &message));
        let mut settled = vec![settle(queue, 3, 6), settle(queue, 8, 8), settle(QueueKey(3), 1, 9)];
        let gone = take_consumed(&mut appends, &mut settled, &[]);
        assert_eq!((seqs(&gone), seqs(&appends)), (vec![5, 6, 8], vec![7, 9, 7]));
        assert_eq!(settled, [settle(queue, 3, 4), settle(QueueKey(3), 1, 9)], "the store has only what is older");
    }

    #[test]
    fn paged_messages_leave_memory_in_any_order_so_their_ranges_are_kept() {
        let (queue, message) = (key(1, 0, Stored::Paged), message("m"));
        let mut appends = vec![append(queue, 5, &message)];
        let mut settled = vec![settle(queue, 5, 9)];
        let gone = take_consumed(&mut appends, &mut settled, &[]);
        assert_eq!((seqs(&gone), settled), (vec![5], vec![settle(queue, 5, 9)]));
    }

    #[test]
    fn the_messages_of_a_deleted_queue_are_not_written() {
        let (queue, other, message) = (QueueKey(1), QueueKey(2), message("m"));
        let mut appends = vec![append(queue, 1, &message), append(other, 1, &message), append(queue, 2, &message)];
        let gone = take_consumed(&mut appends, &mut Vec::new(), &[queue]);
        assert_eq!((seqs(&gone), seqs(&appends)), (vec![1, 2], vec![1]));
    }
}
