//! A VNC client that takes one picture (RFC 6143): a witness of what a framebuffer shows.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A picture: its size, and its pixels of 4 bytes, of which three are colours.
#[derive(Debug)]
pub(crate) struct Picture {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pixels: Vec<[u8; 4]>,
}

fn bytes<const COUNT: usize>(stream: &mut TcpStream) -> [u8; COUNT] {
    let mut read = [0; COUNT];
    stream.read_exact(&mut read).expect("VNC answers");
    read
}

fn half(stream: &mut TcpStream) -> usize {
    usize::from(u16::from_be_bytes(bytes(stream)))
}

fn send(stream: &mut TcpStream, message: &[u8]) {
    stream.write_all(message).expect("written");
}

/// A connection to the server on this port of dom0, which wants no password, and the size of its framebuffer.
fn connect(port: &str) -> (TcpStream, usize, usize) {
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).expect("VNC listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
    assert_eq!(&bytes::<12>(&mut stream), b"RFB 003.008\n");
    send(&mut stream, b"RFB 003.008\n");
    let [kinds] = bytes::<1>(&mut stream);
    let mut offered = vec![0; usize::from(kinds)];
    stream.read_exact(&mut offered).expect("kinds of security");
    assert!(offered.contains(&1), "no password is wanted: {offered:?}");
    send(&mut stream, &[1]);
    assert_eq!(bytes(&mut stream), [0; 4], "let in");
    send(&mut stream, &[1]); // others may look, too
    let (width, height) = (half(&mut stream), half(&mut stream));
    let format: [u8; 16] = bytes(&mut stream);
    assert_eq!(format[0], 32, "bits of a pixel");
    let name = u32::from_be_bytes(bytes(&mut stream));
    let mut text = vec![0; usize::try_from(name).expect("short")];
    stream.read_exact(&mut text).expect("a name");
    (stream, width, height)
}

/// Ctrl-Alt-1, by which QEMU shows its first console to all clients (ui/vnc.c).
pub(crate) fn choose_first_console(port: &str) {
    const KEYS: [u32; 3] = [0xffe3, 0xffe9, b'1' as u32];
    let (mut stream, ..) = connect(port);
    for (down, keys) in [(1, KEYS), (0, KEYS)] {
        for key in keys {
            send(&mut stream, &[&[4, down, 0, 0], &key.to_be_bytes()[..]].concat());
        }
    }
    // QEMU reads a client's messages in turn: with the picture, it has read the keys.
    send(&mut stream, &[3, 0, 0, 0, 0, 0, 0, 1, 0, 1]);
    let _: [u8; 4] = bytes(&mut stream);
}

impl Picture {
    /// The whole framebuffer of the server on this port.
    pub(crate) fn take(port: &str) -> Self {
        let (mut stream, width, height) = connect(port);
        send(&mut stream, &[2, 0, 0, 1, 0, 0, 0, 0]); // raw rectangles alone
        let [wide, high] = [width, height].map(|size| u16::try_from(size).expect("a size").to_be_bytes());
        send(&mut stream, &[&[3, 0, 0, 0, 0, 0], &wide[..], &high[..]].concat());
        let mut pixels = vec![[0; 4]; width * height];
        let mut painted = 0;
        while painted < width * height {
            let [kind, _] = bytes::<2>(&mut stream);
            assert_eq!(kind, 0, "an update of the framebuffer");
            for _ in 0..half(&mut stream) {
                let [left, top, wide, high] = [(); 4].map(|()| half(&mut stream));
                assert_eq!(bytes(&mut stream), [0; 4], "a raw rectangle");
                for row in top..top + high {
                    for place in left..left + wide {
                        pixels[row * width + place] = bytes(&mut stream);
                    }
                }
                painted += wide * high;
            }
        }
        Self { width, height, pixels }
    }

    /// How many pixels are not black.
    pub(crate) fn lit(&self) -> usize {
        self.pixels.iter().filter(|pixel| pixel[..3] != [0; 3]).count()
    }

    /// As a portable pixmap; QEMU's pixels are blue, green, red.
    pub(crate) fn pixmap(&self) -> Vec<u8> {
        let mut all = format!("P6 {} {} 255\n", self.width, self.height).into_bytes();
        all.extend(self.pixels.iter().flat_map(|pixel| [pixel[2], pixel[1], pixel[0]]));
        all
    }
}
