//! The certificate authority: issuing, join tokens, renewal
