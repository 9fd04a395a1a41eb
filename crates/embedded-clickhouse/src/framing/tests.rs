use super::*;
use std::io::Write;

fn decode(stream: &[u8], piece: usize) -> Result<Vec<u8>, u32> {
    let mut decoder = Decoder::new(true);
    let mut out = Vec::new();
    for piece in stream.chunks(piece) {
        decoder
            .push(piece, |data| {
                out.extend_from_slice(data);
                Ok(())
            })
            .map_err(|e| e.code())?;
    }
    decoder.finish().map_err(|e| e.code())?;
    Ok(out)
}

#[test]
fn blocks_are_put_together_wherever_the_pieces_end() {
    let stream =
        [encode_block(b"hello "), encode_block(&[b'x'; 70_000]), encode_block(b"")].concat();
    let expected = [b"hello ".as_slice(), &[b'x'; 70_000]].concat();
    for piece in [1, 7, 25, 1000, stream.len()] {
        assert_eq!(decode(&stream, piece).as_deref(), Ok(expected.as_slice()), "{piece}");
    }
}

#[test]
fn a_flipped_bit_or_a_missing_byte_is_an_error() {
    let stream = encode_block(b"usage usage usage usage");
    for at in 0..stream.len() {
        let mut broken = stream.clone();
        broken[at] ^= 1;
        assert!(decode(&broken, 1000).is_err(), "byte {at}");
        assert_eq!(decode(&stream[..at], 1000).is_err(), at > 0, "cut at {at}");
    }
}

#[test]
fn a_block_cannot_claim_more_than_the_limit() {
    let mut stream = encode_block(b"x");
    stream[21..25].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(decode(&stream, 1000), Err(TOO_LARGE));
}

#[test]
fn a_bomb_is_stopped_at_the_limit() {
    let block = encode_block(&vec![0; BUFFERED_BYTES_MAX]);
    let mut decoder = Decoder::new(true);
    let fits = INSERT_BYTES_MAX / BUFFERED_BYTES_MAX;
    for _ in 0..fits {
        decoder.push(&block, |_| Ok(())).unwrap();
    }
    assert_eq!(decoder.push(&encode_block(b"1"), |_| Ok(())).map_err(|e| e.code()), Err(TOO_LARGE));
}

#[test]
fn unknown_methods_and_encodings_are_refused() {
    let mut framed = vec![0x90, 10, 0, 0, 0, 1, 0, 0, 0, b'x'];
    let checksum = cityhash_rs::cityhash_102_128(&framed).rotate_right(64).to_le_bytes();
    let mut stream = checksum.to_vec();
    stream.append(&mut framed);
    assert_eq!(decode(&stream, 1000), Err(UNKNOWN_COMPRESSION_METHOD));
    for encoding in ["gzip", "zstd", "br", "lz4, gzip"] {
        assert!(
            decode_content(Some(encoding), Bytes::from_static(b"SELECT 1")).is_err(),
            "{encoding}"
        );
    }
    assert!(decode_content(Some("lz4"), Bytes::from_static(b"SELECT 1")).is_err());
}

#[test]
fn an_lz4_body_is_decoded() {
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
    encoder.write_all(b"SELECT 1").unwrap();
    let body = Bytes::from(encoder.finish().unwrap());
    assert_eq!(decode_content(Some("lz4"), body).unwrap(), "SELECT 1");
    assert_eq!(decode_content(None, Bytes::from_static(b"SELECT 1")).unwrap(), "SELECT 1");
}
