//! Compares a body with its declared content-length (RFC 9114 section 4.1.2). Pure.

/// How many more bytes of body may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BodyLength {
    left: Option<u64>,
}

impl BodyLength {
    /// A body that ends where the stream does.
    pub(crate) const UNDECLARED: Self = Self { left: None };
    /// No body may come: HEAD, 1xx, 204, 304.
    pub(crate) const NONE: Self = Self { left: Some(0) };

    /// The declared length, if there is one.
    pub(crate) fn declared(length: Option<u64>) -> Self {
        Self { left: length }
    }

    /// Counts bytes; `false` when they are more than declared.
    #[must_use]
    pub(crate) fn take(&mut self, bytes: usize) -> bool {
        let Some(left) = self.left.as_mut() else {
            return true;
        };
        match left.checked_sub(bytes as u64) {
            Some(rest) => {
                *left = rest;
                true
            }
            None => false,
        }
    }

    /// Whether the body may end here.
    pub(crate) fn is_complete(self) -> bool {
        self.left.unwrap_or(0) == 0
    }

    /// Bytes left, if that is known.
    pub(crate) fn left(self) -> Option<u64> {
        self.left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declared_body_must_have_exactly_its_length() {
        let mut length = BodyLength::declared(Some(3));
        assert!(length.take(2));
        assert!(!length.is_complete());
        assert!(length.take(1));
        assert!(length.is_complete());
        assert!(!length.take(1));
        assert!(BodyLength::UNDECLARED.is_complete());
        assert!(!{ BodyLength::NONE }.take(1));
    }
}
