//! One size for all searches of an index.
//!
//! Who sees the network sees how long messages are. Without padding a reply tells how
//! many candidates were asked for and whether they came as records or as ids; a request
//! tells it by a byte or two. So every request to an index has one size and every reply
//! has one, whatever is asked for: the size of the largest. Both ends refuse another one.
//!
//! What stays visible: that a request was made, when, that it failed (an error is a
//! status without a message), and whether the client holds the decryption key itself,
//! for then a search is two requests.

use crate::v1;
use crate::{Failure, Reason};
use bytes::Bytes;
use prost::Message;
use prost::encoding::encoded_len_varint;

/// The numbers of an index from which the sizes follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexShape {
    /// Bytes of an encrypted query.
    pub query_bytes: usize,
    /// Bytes of a query encrypted by who holds the decryption key.
    pub seeded_query_bytes: usize,
    /// Bytes of a share of the table.
    pub share_bytes: usize,
    /// Bytes of one record.
    pub record_bytes: usize,
    /// Most candidates of one query.
    pub candidates_max: u32,
    /// Most lists that one query looks at; 0 without lists.
    pub probes_max: u32,
}

/// The sizes of the messages of one index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    search: usize,
    begin: usize,
    finish: usize,
    reply: usize,
}

/// Zeros of two bytes at least; a single byte cannot be filled.
const ROOM: usize = 2;

impl Sizes {
    /// The sizes for an index of the given shape.
    #[must_use]
    pub fn new(shape: &IndexShape) -> Self {
        let longest = v1::SearchRequest {
            index_id: Bytes::from_static(&[0; crate::limits::INDEX_ID_BYTES]),
            epoch: u64::MAX,
            candidates: crate::limits::MAX_CANDIDATES,
            with_records: true,
            with_ids: true,
            with_scores: true,
            filter: Bytes::from_static(&[0; crate::limits::FILTER_BYTES]),
            lists: Bytes::from(vec![0; 2 * shape.probes_max as usize]),
            ..Default::default()
        };
        let request = |query| longest.encoded_len() + field(query) + ROOM;
        let candidates = shape.candidates_max as usize;
        let timings = v1::SearchTimings {
            decode_us: u32::MAX,
            evaluate_us: u32::MAX,
            keeper_us: u32::MAX,
            unmask_us: u32::MAX,
            queue_us: u32::MAX,
            scan_us: u32::MAX,
            fetch_us: u32::MAX,
            total_us: u32::MAX,
            batch: u32::MAX,
        };
        let longest = v1::SearchReply {
            record_bytes: u32::MAX,
            timings: Some(timings),
            ..Default::default()
        };
        let reply = longest.encoded_len()
            + field(candidates * shape.record_bytes)
            + field(candidates * 8)
            + field(candidates * 2)
            + ROOM;
        Self {
            search: request(shape.query_bytes),
            begin: request(shape.seeded_query_bytes),
            finish: field(crate::limits::SESSION_BYTES) + field(shape.share_bytes),
            reply,
        }
    }

    /// Bytes of every message of `Search`.
    #[must_use]
    pub const fn search(&self) -> usize {
        self.search
    }

    /// Bytes of every reply to `Search` and `FinishSearch`.
    #[must_use]
    pub const fn reply(&self) -> usize {
        self.reply
    }

    /// Bytes of the largest request to this index.
    #[must_use]
    pub fn largest_request(&self) -> usize {
        self.search.max(self.begin).max(self.finish)
    }

    /// Pads a message of `Search`. One that is too long already stays as it is, and is
    /// refused.
    pub fn pad_search(&self, request: &mut v1::SearchRequest) {
        request.padding.clear();
        request.padding = zeros(self.search.saturating_sub(request.encoded_len()));
    }

    /// Pads a message of `BeginSearch`, likewise.
    pub fn pad_begin(&self, request: &mut v1::SearchRequest) {
        request.padding.clear();
        request.padding = zeros(self.begin.saturating_sub(request.encoded_len()));
    }

    /// Pads a reply, likewise.
    pub fn pad_reply(&self, reply: &mut v1::SearchReply) {
        reply.padding.clear();
        reply.padding = zeros(self.reply.saturating_sub(reply.encoded_len()));
    }

    /// Checks the size of a message of `Search`.
    ///
    /// # Errors
    /// `BAD_REQUEST` with both sizes.
    pub fn check_search(&self, request: &v1::SearchRequest) -> Result<(), Failure> {
        check("request", request.encoded_len(), self.search)
    }

    /// Checks the size of a message of `BeginSearch`.
    ///
    /// # Errors
    /// `BAD_REQUEST` with both sizes.
    pub fn check_begin(&self, request: &v1::SearchRequest) -> Result<(), Failure> {
        check("request", request.encoded_len(), self.begin)
    }

    /// Checks the size of a message of `FinishSearch`, which needs no padding.
    ///
    /// # Errors
    /// `BAD_REQUEST` with both sizes.
    pub fn check_finish(&self, request: &v1::FinishSearchRequest) -> Result<(), Failure> {
        check("request", request.encoded_len(), self.finish)
    }

    /// Checks the size of a reply.
    ///
    /// # Errors
    /// `BAD_REQUEST` with both sizes.
    pub fn check_reply(&self, reply: &v1::SearchReply) -> Result<(), Failure> {
        check("reply", reply.encoded_len(), self.reply)
    }
}

fn check(what: &str, found: usize, expected: usize) -> Result<(), Failure> {
    if found == expected {
        return Ok(());
    }
    Err(Failure::new(
        Reason::BadRequest,
        format!("the {what} has {found} bytes; every {what} of this index has {expected}"),
    ))
}

/// Bytes of a field of `length` bytes with its tag of one byte and its length; of an
/// empty one as well, which is not sent.
fn field(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

/// Pieces of zeros that take `room` bytes in a message, tags and lengths included.
///
/// One piece is not always enough: a piece of 127 zeros takes 129 bytes and one of 128
/// takes 131. For what lies between, an empty piece of two bytes goes first.
fn zeros(room: usize) -> Vec<Bytes> {
    let one = |room: usize| {
        (2..=11).find_map(|head| room.checked_sub(head).filter(|&n| field(n) == room))
    };
    let piece = |length: usize| Bytes::from(vec![0; length]);
    match (one(room), one(room.saturating_sub(ROOM))) {
        (Some(length), _) => vec![piece(length)],
        (None, Some(length)) => vec![Bytes::new(), piece(length)],
        (None, None) => Vec::new(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SHAPE: IndexShape = IndexShape {
        query_bytes: 25_600,
        seeded_query_bytes: 12_832,
        share_bytes: 8_192,
        record_bytes: 300,
        candidates_max: 256,
        probes_max: 0,
    };

    fn request(query: usize, candidates: u32, flags: u8) -> v1::SearchRequest {
        v1::SearchRequest {
            index_id: vec![7; 16].into(),
            epoch: 1,
            query: vec![1; query].into(),
            candidates,
            with_records: flags & 1 != 0,
            with_ids: flags & 2 != 0,
            with_scores: flags & 4 != 0,
            filter: vec![flags; 24].into(),
            ..Default::default()
        }
    }

    fn reply(candidates: usize, flags: u8, time: u32) -> v1::SearchReply {
        let asked = |flag: u8| if flags & flag != 0 { candidates } else { 0 };
        v1::SearchReply {
            records: vec![1; asked(1) * SHAPE.record_bytes].into(),
            record_bytes: if flags & 1 != 0 { 300 } else { 0 },
            ids: vec![9; asked(2)],
            scores: vec![1; asked(4) * 2].into(),
            timings: Some(v1::SearchTimings {
                scan_us: time,
                total_us: time,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn any_room_but_one_byte_is_filled_exactly() {
        for room in (2..70_000).chain(2_097_100..2_097_200) {
            let message = v1::SearchReply {
                padding: zeros(room),
                ..Default::default()
            };
            assert_eq!(message.encoded_len(), room);
        }
        assert!(zeros(0).is_empty());
        assert!(zeros(1).is_empty());
    }

    #[test]
    fn every_question_has_one_size() {
        let sizes = Sizes::new(&SHAPE);
        for candidates in [0, 1, 10, 100, 127, 128, 256, 4_096] {
            for flags in 0..8 {
                let mut whole = request(SHAPE.query_bytes, candidates, flags);
                sizes.pad_search(&mut whole);
                assert_eq!(whole.encoded_len(), sizes.search());
                sizes.check_search(&whole).unwrap();
                sizes.pad_search(&mut whole);
                sizes.check_search(&whole).unwrap();
                let mut half = request(SHAPE.seeded_query_bytes, candidates, flags);
                half.epoch = u64::MAX;
                sizes.pad_begin(&mut half);
                sizes.check_begin(&half).unwrap();
            }
        }
        let finish = v1::FinishSearchRequest {
            session: vec![0; 16].into(),
            share: vec![0; SHAPE.share_bytes].into(),
        };
        sizes.check_finish(&finish).unwrap();
        assert!(sizes.largest_request() < SHAPE.query_bytes + 96);
    }

    #[test]
    fn any_number_of_lists_has_one_size() {
        let sizes = Sizes::new(&IndexShape {
            probes_max: 100,
            ..SHAPE
        });
        for lists in [1, 2, 63, 64, 99, 100] {
            let mut asked = request(SHAPE.query_bytes, 100, 1);
            asked.lists = vec![7; 2 * lists].into();
            sizes.pad_search(&mut asked);
            sizes.check_search(&asked).unwrap();
        }
        let mut more = request(SHAPE.query_bytes, 4_096, 7);
        more.epoch = u64::MAX;
        more.lists = vec![7; 220].into();
        sizes.pad_search(&mut more);
        assert!(sizes.check_search(&more).is_err());
    }

    #[test]
    fn fail_other_sizes() {
        let sizes = Sizes::new(&SHAPE);
        let mut good = request(SHAPE.query_bytes, 100, 1);
        let failure = sizes.check_search(&good).unwrap_err();
        assert_eq!(failure.reason, Reason::BadRequest);
        let found = good.encoded_len().to_string();
        assert!(failure.message.contains(&found), "{}", failure.message);
        let due = sizes.search().to_string();
        assert!(failure.message.contains(&due), "{}", failure.message);
        sizes.pad_search(&mut good);
        assert!(sizes.check_begin(&good).is_err());
        for query in [SHAPE.query_bytes - 1, SHAPE.query_bytes + 1] {
            let mut other = good.clone();
            other.query = vec![0; query].into();
            assert!(sizes.check_search(&other).is_err());
        }
        let mut long = request(2 * SHAPE.query_bytes, 100, 1);
        sizes.pad_search(&mut long);
        assert!(sizes.check_search(&long).is_err());
        let mut long = reply(257, 7, 0);
        sizes.pad_reply(&mut long);
        assert!(sizes.check_reply(&long).is_err());
        assert!(sizes.check_reply(&reply(100, 1, 0)).is_err());
        let short = v1::FinishSearchRequest {
            session: vec![0; 16].into(),
            share: vec![0; SHAPE.share_bytes - 1].into(),
        };
        assert!(sizes.check_finish(&short).is_err());
    }

    proptest! {
        #[test]
        fn every_answer_has_one_size(candidates in 0_usize..=256, flags in 0_u8..8, time: u32) {
            let sizes = Sizes::new(&SHAPE);
            let mut reply = reply(candidates, flags, time);
            sizes.pad_reply(&mut reply);
            prop_assert_eq!(reply.encode_to_vec().len(), sizes.reply());
            prop_assert!(sizes.check_reply(&reply).is_ok());
        }
    }
}
