//! What this channel has delivered and not seen settled: delivery tag to the source and its ticket.
//!
//! The queue holds the message and is the one truth about it; the channel only knows whom to tell (semantics 7.8, 13.17).

use crate::amqp::SourceId;
use crate::amqp::reply_code::{ProtocolError, ReplyCode};
use crate::window::Window;

/// Names one outstanding delivery towards the queue that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outstanding {
    /// The consumer or getter of this connection.
    pub source: SourceId,
    /// The queue's number for the delivery to that source.
    pub ticket: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Unacked {
    next_tag: u64,
    outstanding: Window<Outstanding>,
}

impl Default for Unacked {
    fn default() -> Self {
        Self { next_tag: 1, outstanding: Window::default() }
    }
}

impl Unacked {
    /// The tag of the next delivery; `outstanding` is none when nobody will ack it (semantics 13.12).
    #[inline]
    pub(crate) fn tag(&mut self, outstanding: Option<Outstanding>) -> u64 {
        let tag = self.next_tag;
        self.next_tag += 1;
        if let Some(outstanding) = outstanding {
            self.outstanding.insert(tag, outstanding);
        }
        tag
    }

    /// Takes out what an ack, nack or reject names, with its tags, in delivery order.
    ///
    /// # Errors
    /// 406 for a tag that is not outstanding, also with `multiple`; tag 0 with `multiple` is all there is (semantics 13.17).
    pub(crate) fn settle(
        &mut self,
        tag: u64,
        multiple: bool,
        mut each: impl FnMut(u64, Outstanding),
    ) -> Result<(), ProtocolError> {
        if multiple && tag == 0 {
            self.outstanding.drain_up_to(u64::MAX, each);
            return Ok(());
        }
        if multiple && self.outstanding.contains(tag) {
            self.outstanding.drain_up_to(tag, each);
            return Ok(());
        }
        match self.outstanding.remove(tag) {
            Some(outstanding) => each(tag, outstanding),
            None => {
                return Err(ProtocolError::new(ReplyCode::PreconditionFailed, format!("unknown delivery tag {tag}")));
            }
        }
        Ok(())
    }

    /// How many are outstanding.
    pub(crate) fn len(&self) -> usize {
        self.outstanding.len()
    }

    /// A delivery that was taken out is outstanding again, under its old tag (semantics 15.6).
    pub(crate) fn restore(&mut self, tag: u64, outstanding: Outstanding) {
        self.outstanding.restore(tag, outstanding);
    }

    /// Takes out everything, in delivery order.
    pub(crate) fn drain(&mut self, settled: &mut Vec<Outstanding>) {
        self.outstanding.drain_up_to(u64::MAX, |_, outstanding| settled.push(outstanding));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(settles: &[(u64, bool)], expected: &[Result<&[u64], ()>]) {
        let mut unacked = Unacked::default();
        for ticket in 1..=5 {
            unacked.tag(Some(Outstanding { source: SourceId(0), ticket }));
        }
        for (&(tag, multiple), expected) in settles.iter().zip(expected) {
            let mut settled: Vec<Outstanding> = Vec::new();
            let result = unacked.settle(tag, multiple, |_, outstanding| settled.push(outstanding));
            let tickets: Vec<u64> = settled.iter().map(|o| o.ticket).collect();
            assert_eq!(result.map(|()| tickets.as_slice()).map_err(drop), *expected, "tag {tag} multiple {multiple}");
        }
    }

    #[test]
    fn multiple_settles_everything_up_to_an_outstanding_tag() {
        check(&[(2, false), (3, true), (3, true)], &[Ok(&[2]), Ok(&[1, 3]), Err(())]);
    }

    #[test]
    fn tag_zero_means_all_only_with_multiple() {
        check(&[(0, false), (0, true), (0, true)], &[Err(()), Ok(&[1, 2, 3, 4, 5]), Ok(&[])]);
    }

    #[test]
    fn a_tag_beyond_the_last_is_unknown_also_with_multiple() {
        check(&[(9, true), (6, false)], &[Err(()), Err(())]);
    }
}
