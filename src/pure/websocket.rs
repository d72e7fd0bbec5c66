//! Where the frames of a WebSocket end, without a look at what is in them (RFC 6455 §5.2).
//!
//! | when | then |
//! |---|---|
//! | a whole number of frames has passed, and none of them is Close | the gate may add a Close of its own |
//! | a frame is under way, or Close has passed | it may not: it would be taken for content, or come too late |
//! | what passed can't be frames | it may not, ever |

/// Bytes of a frame's head before its mask, at most.
const HEAD_BYTES: usize = 10;
/// Content of a control frame, at most (§5.5).
const MOST_CONTROL_BYTES: u64 = 125;
const MASK_BYTES: u64 = 4;
const CLOSE: u8 = 8;
const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;

/// Follows the frames of one direction.
#[derive(Debug, Clone, Copy, Default)]
pub struct Frames {
    at: At,
    closed: bool,
}

#[derive(Debug, Clone, Copy)]
enum At {
    /// So many bytes of a head have passed.
    Head {
        bytes: [u8; HEAD_BYTES],
        passed: usize,
    },
    /// So many bytes of a frame are left, its mask included.
    Content(u64),
    /// These are no frames.
    Lost,
}

impl Default for At {
    fn default() -> Self {
        Self::Head {
            bytes: [0; HEAD_BYTES],
            passed: 0,
        }
    }
}

impl Frames {
    /// Lets bytes pass.
    pub fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((&first, rest)) = bytes.split_first() {
            match &mut self.at {
                At::Lost => return,
                At::Content(left) => {
                    let skipped = usize::try_from(*left)
                        .unwrap_or(usize::MAX)
                        .min(bytes.len());
                    *left = left.saturating_sub(skipped as u64);
                    if *left == 0 {
                        self.at = At::default();
                    }
                    bytes = bytes.get(skipped..).unwrap_or_default();
                }
                At::Head {
                    bytes: head,
                    passed,
                } => {
                    bytes = rest;
                    if let Some(byte) = head.get_mut(*passed) {
                        *byte = first;
                    }
                    *passed = passed.saturating_add(1);
                    match Head::read(head.get(..*passed).unwrap_or_default()) {
                        Ok(None) => {}
                        Ok(Some(head)) => {
                            self.closed |= head.closes;
                            self.at = match head.content_bytes {
                                0 => At::default(),
                                left => At::Content(left),
                            };
                        }
                        Err(NoFrame) => self.at = At::Lost,
                    }
                }
            }
        }
    }

    /// Whether a frame may be added here.
    pub const fn may_close(&self) -> bool {
        matches!(self.at, At::Head { passed: 0, .. }) && !self.closed
    }
}

struct NoFrame;

struct Head {
    /// With those of the mask.
    content_bytes: u64,
    closes: bool,
}

impl Head {
    /// The head that `bytes` begin with, or `None` where it needs more of them.
    fn read(bytes: &[u8]) -> Result<Option<Self>, NoFrame> {
        let [first, second, rest @ ..] = bytes else {
            return Ok(None);
        };
        let length = match (second & !MASKED, rest) {
            (126, [a, b]) => u16::from_be_bytes([*a, *b]).into(),
            (127, [a, b, c, d, e, f, g, h]) => u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]),
            (126 | 127, _) => return Ok(None),
            (short, _) => u64::from(short),
        };
        let opcode = first & 0x0F;
        let is_control = opcode >= CLOSE;
        let is_known = matches!(opcode, 0..=2 | CLOSE..=10);
        let fits = !is_control || (length <= MOST_CONTROL_BYTES && first & FINAL != 0);
        if !is_known || !fits || length > i64::MAX.unsigned_abs() {
            return Err(NoFrame);
        }
        let mask = if second & MASKED == 0 { 0 } else { MASK_BYTES };
        Ok(Some(Self {
            content_bytes: length.saturating_add(mask),
            closes: opcode == CLOSE,
        }))
    }
}

/// Why an endpoint closes (RFC 6455 §7.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// It goes away, or takes up no more of the other's time.
    GoingAway = 1001,
    /// The other may not go on.
    PolicyViolation = 1008,
}

/// A Close frame; what a client sends is masked, what a server sends is not (§5.1).
pub fn close(code: Code, mask: Option<[u8; 4]>) -> Vec<u8> {
    let [high, low] = (code as u16).to_be_bytes();
    match mask {
        None => vec![FINAL | CLOSE, 2, high, low],
        Some([a, b, c, d]) => {
            vec![FINAL | CLOSE, MASKED | 2, a, b, c, d, high ^ a, low ^ b]
        }
    }
}

/// What the fuzzer runs.
#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    use super::*;

    /// However bytes are cut, the same is known after them; and a Close of ours is a Close.
    pub fn websocket(bytes: &[u8]) {
        let mut whole = Frames::default();
        whole.pass(bytes);
        let mut single = Frames::default();
        for byte in bytes {
            single.pass(&[*byte]);
        }
        assert_eq!(whole.may_close(), single.may_close());
        if whole.may_close() {
            let mask = bytes.first_chunk().copied();
            let close = close(Code::GoingAway, mask);
            let (last, before) = close.split_last().expect("a frame is not empty");
            whole.pass(before);
            assert!(matches!(whole.at, At::Content(1)) && whole.closed);
            whole.pass(&[*last]);
            assert!(matches!(whole.at, At::Head { passed: 0, .. }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A frame as an endpoint writes it.
    fn frame(opcode: u8, length: usize, masked: bool) -> Vec<u8> {
        let mut frame = vec![FINAL | opcode];
        let mask = if masked { MASKED } else { 0 };
        match length {
            0..=125 => frame.push(mask | length as u8),
            126..=0xFFFF => {
                frame.push(mask | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        // Content that would be heads by itself.
        frame.resize(
            frame.len() + length + if masked { 4 } else { 0 },
            FINAL | CLOSE,
        );
        frame
    }

    fn may_close(bytes: &[u8]) -> bool {
        let mut frames = Frames::default();
        frames.pass(bytes);
        frames.may_close()
    }

    #[test]
    fn between_frames_and_nowhere_else_a_frame_may_be_added() {
        assert!(may_close(b""));
        for (length, masked) in [(0, false), (5, true), (126, false), (70_000, true)] {
            let frame = frame(2, length, masked);
            for end in (1..frame.len()).step_by(1 + frame.len() / 50) {
                assert!(!may_close(&frame[..end]), "{end} of {length}");
            }
            assert!(may_close(&frame));
        }
    }

    #[test]
    fn nothing_follows_a_close() {
        assert!(!may_close(&frame(CLOSE, 2, true)));
        assert!(!may_close(&close(Code::PolicyViolation, None)));
    }

    #[test]
    fn what_are_no_frames_is_left_alone() {
        for bytes in [
            &[FINAL | 3, 0][..],
            &[FINAL | 11, 0],
            &[CLOSE, 0],
            &[FINAL | 9, 126, 0, 126],
            &[FINAL | 2, 127, 0x80, 0, 0, 0, 0, 0, 0, 0],
        ] {
            let mut frames = Frames::default();
            frames.pass(bytes);
            frames.pass(&[0; 1024]);
            assert!(!frames.may_close(), "{bytes:?}");
        }
    }

    #[test]
    fn a_close_is_written_as_its_sender_must() {
        assert_eq!(close(Code::PolicyViolation, None), [0x88, 2, 0x03, 0xF0]);
        assert_eq!(
            close(Code::GoingAway, Some([1, 2, 3, 4])),
            [0x88, 0x82, 1, 2, 3, 4, 0x03 ^ 1, 0xE9 ^ 2]
        );
    }

    proptest! {
        #[test]
        fn frames_are_followed_however_they_are_cut(
            frames in prop::collection::vec((0_u8..3, 0_usize..400, any::<bool>()), 0..6),
            cut in 0_usize..2500,
        ) {
            let frames: Vec<Vec<u8>> = frames.into_iter().map(|(o, l, m)| frame(o, l, m)).collect();
            let all = frames.concat();
            let cut = cut.min(all.len());
            let ends = frames.iter().scan(0, |end, frame| { *end += frame.len(); Some(*end) });
            let is_end = cut == 0 || ends.into_iter().any(|end| end == cut);
            prop_assert_eq!(may_close(&all[..cut]), is_end);
            fuzzing::websocket(&all[..cut]);
        }

        #[test]
        fn any_bytes_as_frames(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            fuzzing::websocket(&bytes);
        }
    }
}
