//! HMAC-SHA256 (RFC 2104): proves that both ends of a connection know the run's token without sending it.

use sha2::{Digest, Sha256};

/// Bytes of a block of SHA-256.
const BLOCK: usize = 64;

/// The authentication code of a message in parts.
pub(super) fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut block = [0u8; BLOCK];
    match key.len() > BLOCK {
        true => block[..32].copy_from_slice(&Sha256::digest(key)),
        false => block[..key.len()].copy_from_slice(key),
    }
    let pad = |with: u8| block.map(|byte| byte ^ with);
    let mut inner = Sha256::new_with_prefix(pad(0x36));
    for part in parts {
        inner.update(part);
    }
    let inner = inner.finalize();
    Sha256::new_with_prefix(pad(0x5c)).chain_update(inner).finalize().into()
}

/// Whether two codes are equal, in a time that does not tell where they differ.
pub(super) fn is_equal(left: &[u8; 32], right: &[u8; 32]) -> bool {
    left.iter().zip(right).fold(0, |differ, (left, right)| differ | (left ^ right)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Key, parts of the message, and their code.
    type Case = (&'static [u8], &'static [&'static [u8]], &'static str);

    /// Test cases 1, 2, 3 and 6 of RFC 4231.
    #[test]
    fn the_codes_of_rfc_4231_come_out() {
        let cases: [Case; 4] = [
            (&[0x0b; 20], &[b"Hi There"], "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
            (
                b"Jefe",
                &[b"what do ya want ", b"for nothing?"],
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (&[0xaa; 20], &[&[0xdd; 50]], "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
            (
                &[0xaa; 131],
                &[b"Test Using Larger Than Block-Size Key - Hash Key First"],
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ];
        for (key, parts, expected) in cases {
            assert_eq!(hex(&hmac(key, parts)), expected);
        }
    }

    #[test]
    fn one_other_bit_makes_codes_unequal() {
        let code = hmac(b"key", &[b"message"]);
        let mut other = code;
        assert!(is_equal(&code, &other));
        other[31] ^= 1;
        assert!(!is_equal(&code, &other));
    }
}
