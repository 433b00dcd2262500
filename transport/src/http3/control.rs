//! The frames that a peer may send on its control stream, and in which order (RFC 9114 section 7.2). Pure.

use super::code::ErrorCode;
use super::frame;
use super::settings::{self, Settings};
use super::shared::Side;
use super::varint;

/// The state of the peer's control stream.
#[derive(Debug)]
pub(super) struct PeerControl {
    /// Which side *this* endpoint is.
    side: Side,
    settings_seen: bool,
    goaway: Option<u64>,
    push_id_max: Option<u64>,
}

/// What a frame means to the connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ControlEvent {
    /// The peer's settings; once only.
    Settings(Settings),
    /// To a client: requests on this stream ID and above will not be processed.
    Goaway(u64),
}

/// A rule broken: a connection error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) code: ErrorCode,
    pub(super) reason: &'static str,
}

impl PeerControl {
    pub(super) fn new(side: Side) -> Self {
        Self {
            side,
            settings_seen: false,
            goaway: None,
            push_id_max: None,
        }
    }

    /// Takes the next frame. For unknown types only the first position matters.
    pub(super) fn frame(
        &mut self,
        frame: u64,
        payload: &[u8],
    ) -> Result<Option<ControlEvent>, Broken> {
        match frame {
            frame::SETTINGS => self.settings(payload).map(Some),
            //= https://www.rfc-editor.org/rfc/rfc9114#section-6.2.1
            //# If the first frame of the control stream is any other frame type, this MUST be
            //# treated as a connection error of type H3_MISSING_SETTINGS.
            _ if !self.settings_seen => broken(
                ErrorCode::H3_MISSING_SETTINGS,
                "the first frame is not SETTINGS",
            ),
            frame::GOAWAY => self.goaway(payload),
            //= https://www.rfc-editor.org/rfc/rfc9114#section-7.2.3
            //# If a CANCEL_PUSH frame is received that references a push ID greater than currently
            //# allowed on the connection, this MUST be treated as a connection error of type
            //# H3_ID_ERROR.
            frame::CANCEL_PUSH => broken(ErrorCode::H3_ID_ERROR, "CANCEL_PUSH without a push"),
            frame::MAX_PUSH_ID => self.max_push_id(payload),
            _ => Ok(None),
        }
    }

    fn settings(&mut self, payload: &[u8]) -> Result<ControlEvent, Broken> {
        //= https://www.rfc-editor.org/rfc/rfc9114#section-7.2.4
        //# If an endpoint receives a second SETTINGS frame on the control stream, the endpoint MUST
        //# respond with a connection error of type H3_FRAME_UNEXPECTED.
        if std::mem::replace(&mut self.settings_seen, true) {
            return broken(ErrorCode::H3_FRAME_UNEXPECTED, "a second SETTINGS frame");
        }
        match settings::decode(payload) {
            Ok(settings) => Ok(ControlEvent::Settings(settings)),
            Err(error) => broken(error.code, error.reason),
        }
    }

    fn goaway(&mut self, payload: &[u8]) -> Result<Option<ControlEvent>, Broken> {
        let id = identifier(payload)?;
        //= https://www.rfc-editor.org/rfc/rfc9114#section-5.2
        //# Receiving a GOAWAY containing a larger identifier than previously received MUST be
        //# treated as a connection error of type H3_ID_ERROR.
        if self.goaway.is_some_and(|before| id > before) {
            return broken(ErrorCode::H3_ID_ERROR, "GOAWAY with a rising ID");
        }
        self.goaway = Some(id);
        match self.side {
            //= https://www.rfc-editor.org/rfc/rfc9114#section-7.2.6
            //# A client MUST treat receipt of a GOAWAY frame containing a stream ID of any other
            //# type as a connection error of type H3_ID_ERROR.
            Side::Client if !id.is_multiple_of(4) => {
                broken(ErrorCode::H3_ID_ERROR, "GOAWAY for no request stream")
            }
            Side::Client => Ok(Some(ControlEvent::Goaway(id))),
            // It limits pushes, and there are none.
            Side::Server => Ok(None),
        }
    }

    fn max_push_id(&mut self, payload: &[u8]) -> Result<Option<ControlEvent>, Broken> {
        //= https://www.rfc-editor.org/rfc/rfc9114#section-7.2.7
        //# A client MUST treat the receipt of a MAX_PUSH_ID frame as a connection error of type
        //# H3_FRAME_UNEXPECTED.
        if self.side == Side::Client {
            let code = ErrorCode::H3_FRAME_UNEXPECTED;
            return broken(code, "MAX_PUSH_ID from a server");
        }
        let id = identifier(payload)?;
        //= https://www.rfc-editor.org/rfc/rfc9114#section-7.2.7
        //# receipt of a MAX_PUSH_ID frame that contains a smaller value than previously received
        //# MUST be treated as a connection error of type H3_ID_ERROR.
        if self.push_id_max.is_some_and(|before| id < before) {
            return broken(ErrorCode::H3_ID_ERROR, "a falling MAX_PUSH_ID");
        }
        self.push_id_max = Some(id);
        Ok(None)
    }
}

/// A payload that is one integer and nothing else.
fn identifier(payload: &[u8]) -> Result<u64, Broken> {
    match varint::decode(payload) {
        Some((id, length)) if length == payload.len() => Ok(id),
        _ => broken(ErrorCode::H3_FRAME_ERROR, "a frame of the wrong size"),
    }
}

fn broken<T>(code: ErrorCode, reason: &'static str) -> Result<T, Broken> {
    Err(Broken { code, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(side: Side, frames: &[(u64, &[u8])]) -> Option<ErrorCode> {
        let mut control = PeerControl::new(side);
        frames
            .iter()
            .find_map(|(frame, payload)| control.frame(*frame, payload).err())
            .map(|broken| broken.code)
    }

    #[test]
    fn settings_come_first_and_once() {
        let settings = (frame::SETTINGS, &[][..]);
        for first in [frame::GOAWAY, frame::MAX_PUSH_ID, frame::CANCEL_PUSH, 0x21] {
            assert_eq!(
                code(Side::Server, &[(first, &[0])]),
                Some(ErrorCode::H3_MISSING_SETTINGS)
            );
        }
        assert_eq!(
            code(Side::Client, &[settings, settings]),
            Some(ErrorCode::H3_FRAME_UNEXPECTED)
        );
        assert_eq!(code(Side::Client, &[settings, (0x21, &[])]), None);
    }

    #[test]
    fn goaway_falls_and_names_a_request_stream_to_clients() {
        let settings = (frame::SETTINGS, &[][..]);
        let goaway = |id: &'static [u8]| (frame::GOAWAY, id);
        for (side, frames, expected) in [
            (
                Side::Client,
                vec![goaway(&[8]), goaway(&[4]), goaway(&[4])],
                None,
            ),
            (
                Side::Client,
                vec![goaway(&[4]), goaway(&[8])],
                Some(ErrorCode::H3_ID_ERROR),
            ),
            (
                Side::Client,
                vec![goaway(&[1])],
                Some(ErrorCode::H3_ID_ERROR),
            ),
            (
                Side::Client,
                vec![goaway(&[])],
                Some(ErrorCode::H3_FRAME_ERROR),
            ),
            (Side::Server, vec![goaway(&[1])], None),
            (
                Side::Server,
                vec![goaway(&[1]), goaway(&[2])],
                Some(ErrorCode::H3_ID_ERROR),
            ),
        ] {
            let frames = [&[settings][..], &frames].concat();
            assert_eq!(code(side, &frames), expected, "{side:?} {frames:?}");
        }
    }

    #[test]
    fn push_is_refused_on_both_sides() {
        let settings = (frame::SETTINGS, &[][..]);
        let limit = (frame::MAX_PUSH_ID, &[7][..]);
        assert_eq!(
            code(Side::Client, &[settings, limit]),
            Some(ErrorCode::H3_FRAME_UNEXPECTED)
        );
        assert_eq!(code(Side::Server, &[settings, limit, limit]), None);
        assert_eq!(
            code(Side::Server, &[settings, limit, (frame::MAX_PUSH_ID, &[6])]),
            Some(ErrorCode::H3_ID_ERROR)
        );
        assert_eq!(
            code(Side::Server, &[settings, (frame::CANCEL_PUSH, &[0])]),
            Some(ErrorCode::H3_ID_ERROR)
        );
    }
}
