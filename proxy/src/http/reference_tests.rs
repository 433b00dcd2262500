//! A second reader of HTTP/1.1 for the fuzz targets, with nothing of hyper in it: it takes what RFC 9112
//! allows to write and a little of what it allows to read, and calls all else doubtful. Slow, and no more
//! than tests need.

/// The one doubt that hyper does not have: a line of a trailer section that ends with a line feed alone.
pub(crate) const FORGIVEN: &str = "line feed in trailers";

/// What stands at the front of the bytes of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Front {
    /// One message, and how many bytes it has.
    Clear(Message, usize),
    /// Something that two readers may understand differently.
    Doubtful(&'static str),
    /// The beginning of a message.
    Cut,
}

/// A message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// The parts of the first line.
    pub(crate) line: [String; 3],
    /// In order, names in lower case.
    pub(crate) fields: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    /// Whether its own fields say where it ends.
    pub(crate) delimited: bool,
}

impl Message {
    /// The value of the only field of that name.
    pub(crate) fn field(&self, name: &str) -> Option<&[u8]> {
        let mut values = self.fields.iter().filter(|(one, _)| one == name);
        let value = values.next().map(|(_, value)| &**value);
        assert!(values.next().is_none(), "{name} twice");
        value
    }
}

/// Reads a request.
pub(crate) fn request(input: &[u8]) -> Front {
    read(input, false, |message| {
        let [method, target, version] = &message.line;
        if !is_token(method.as_bytes()) || target.is_empty() || !is_version(version) {
            return Err("request line");
        }
        // Beyond ASCII it is none, but leaves no doubt about where the message ends.
        if !target
            .bytes()
            .all(|byte| byte.is_ascii_graphic() || !byte.is_ascii())
        {
            return Err("target");
        }
        Ok(Content::Framed)
    })
}

/// Reads the answer to a request.
pub(crate) fn answer(input: &[u8], to_head: bool) -> Front {
    // RFC 9112 section 5.1: in an answer, a proxy removes white space before the colon.
    read(input, true, |message| {
        let [version, status, _] = &message.line;
        let is_status = status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit());
        if !is_version(version) || !is_status || !matches!(status.as_bytes()[0], b'1'..=b'9') {
            return Err("status line");
        }
        let is_bodiless = to_head || status.starts_with('1') || status == "204" || status == "304";
        Ok(if is_bodiless {
            Content::None
        } else {
            Content::ToTheEnd
        })
    })
}

/// Where the content ends.
enum Content {
    None,
    /// As the fields say; none if they say nothing.
    Framed,
    /// As the fields say, or with the connection.
    ToTheEnd,
}

fn read(
    input: &[u8],
    may_pad_names: bool,
    judge: impl Fn(&Message) -> Result<Content, &'static str>,
) -> Front {
    let mut at = 0;
    // RFC 9112 section 2.2: empty lines before a message say nothing.
    let first = loop {
        match line(input, &mut at) {
            None => return Front::Cut,
            Some([]) => {}
            Some(first) => break first,
        }
    };
    // A reason may have bytes beyond ASCII.
    let first = String::from_utf8_lossy(first);
    let mut message = Message::default();
    for (to, from) in message.line.iter_mut().zip(first.splitn(3, ' ')) {
        *to = from.to_owned();
    }
    loop {
        match line(input, &mut at) {
            None => return Front::Cut,
            Some([]) => break,
            Some(field) => match split(field, may_pad_names) {
                Some(field) => message.fields.push(field),
                None => return Front::Doubtful("field"),
            },
        }
    }
    match judge(&message).and_then(|content| Ok((content, framing(&message)?))) {
        Err(what) => Front::Doubtful(what),
        Ok((Content::None, _)) => {
            message.delimited = true;
            Front::Clear(message, at)
        }
        Ok((_, Framing::Chunked)) => match chunks(input, &mut at, &mut message.body) {
            Ok(true) => {
                message.delimited = true;
                Front::Clear(message, at)
            }
            Ok(false) => Front::Cut,
            Err(what) => Front::Doubtful(what),
        },
        Ok((_, Framing::Length(length))) => {
            let end = usize::try_from(length)
                .ok()
                .and_then(|length| at.checked_add(length));
            match end.and_then(|end| Some((input.get(at..end)?, end))) {
                None => Front::Cut,
                Some((body, end)) => {
                    message.body = body.to_vec();
                    message.delimited = true;
                    Front::Clear(message, end)
                }
            }
        }
        Ok((Content::ToTheEnd, Framing::None)) => {
            message.body = input[at..].to_vec();
            Front::Clear(message, input.len())
        }
        Ok((Content::Framed, Framing::None)) => {
            message.delimited = true;
            Front::Clear(message, at)
        }
    }
}

enum Framing {
    None,
    Length(u64),
    Chunked,
}

/// RFC 9112 sections 6.1 to 6.3, without what a recipient may forgive.
fn framing(message: &Message) -> Result<Framing, &'static str> {
    let of = |name: &str| -> Vec<&[u8]> {
        let named = message.fields.iter().filter(|(one, _)| one == name);
        named.map(|(_, value)| &**value).collect()
    };
    let is_old = message.line.iter().any(|part| part == "HTTP/1.0");
    match (&*of("content-length"), &*of("transfer-encoding")) {
        ([], []) => Ok(Framing::None),
        // RFC 9110 section 8.6: the same again may be taken for one.
        ([length, others @ ..], []) if others.iter().all(|other| other == length) => {
            let text = std::str::from_utf8(length).unwrap_or_default();
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            match text.parse() {
                Ok(length) if is_number => Ok(Framing::Length(length)),
                _ => Err("length"),
            }
        }
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") && !is_old => {
            Ok(Framing::Chunked)
        }
        ([], _) => Err("coding"),
        _ => Err("framing twice"),
    }
}

/// Whether all of it is there.
fn chunks(input: &[u8], at: &mut usize, body: &mut Vec<u8>) -> Result<bool, &'static str> {
    loop {
        let Some(head) = exact_line(input, at)? else {
            return Ok(false);
        };
        // White space behind the size is forgiven by all, and an extension says nothing that matters.
        let count = head
            .iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        let (digits, rest) = head.split_at(count);
        if !matches!(rest.trim_ascii(), [] | [b';', ..]) {
            return Err("chunk");
        }
        let digits = std::str::from_utf8(digits).unwrap_or_default();
        let size = usize::from_str_radix(digits, 16).map_err(|_| "chunk")?;
        if size == 0 {
            break;
        }
        let Some(data) = at.checked_add(size).and_then(|end| input.get(*at..end)) else {
            return Ok(false);
        };
        body.extend_from_slice(data);
        *at += size;
        match exact_line(input, at)? {
            None => return Ok(false),
            Some([]) => {}
            Some(_) => return Err("chunk's end"),
        }
    }
    loop {
        match exact_line(input, at).map_err(|_| FORGIVEN)? {
            None => return Ok(false),
            Some([]) => return Ok(true),
            Some(field) if split(field, false).is_some() => {}
            Some(_) => return Err("trailer"),
        }
    }
}

/// RFC 9112 section 2.2: a line feed alone may be taken for the end of a line of a head.
fn line<'a>(input: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let rest = &input[*at..];
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    *at += end + 1;
    let line = &rest[..end];
    Some(line.strip_suffix(b"\r").unwrap_or(line))
}

fn exact_line<'a>(input: &'a [u8], at: &mut usize) -> Result<Option<&'a [u8]>, &'static str> {
    let rest = &input[*at..];
    let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
        return Ok(None);
    };
    *at += end + 1;
    rest[..end].strip_suffix(b"\r").map(Some).ok_or("line feed")
}

fn split(line: &[u8], may_pad_names: bool) -> Option<(String, Vec<u8>)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    let name = if may_pad_names {
        name.trim_ascii_end()
    } else {
        name
    };
    let is_text = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    if !is_token(name) || !value.iter().all(is_text) {
        return None;
    }
    let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
    Some((name, value.to_vec()))
}

fn is_token(name: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !name.is_empty() && name.iter().all(is_part)
}

fn is_version(text: &str) -> bool {
    matches!(text, "HTTP/1.0" | "HTTP/1.1")
}
