//! Writes zip archives byte by byte, so that every field can be given a wrong value.
#![allow(dead_code)] // each test file uses a part

use std::io::Write;

#[derive(Clone, Copy)]
pub(crate) enum Method {
    Stored,
    Deflated,
}

pub(crate) struct ZipMember {
    pub(crate) name: Vec<u8>,
    pub(crate) data: Vec<u8>,
    pub(crate) flags: u16,
    pub(crate) method: u16,
    pub(crate) crc: u32,
    /// The three numbers of the directory; `offset` where the local header is unless given.
    pub(crate) compressed: u32,
    pub(crate) size: u32,
    pub(crate) offset: Option<u32>,
}

#[derive(Default)]
pub(crate) struct ZipFile {
    pub(crate) members: Vec<ZipMember>,
    /// What the end record says instead of the true number of members.
    pub(crate) count: Option<u16>,
}

impl ZipFile {
    pub(crate) fn new() -> Self {
        ZipFile::default()
    }

    pub(crate) fn with(self, name: &str, method: Method, content: &[u8]) -> Self {
        self.with_raw(name.as_bytes(), method, content)
    }

    pub(crate) fn with_raw(mut self, name: &[u8], method: Method, content: &[u8]) -> Self {
        let (method, data) = match method {
            Method::Stored => (0, content.to_vec()),
            Method::Deflated => {
                let level = flate2::Compression::default();
                let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), level);
                encoder.write_all(content).unwrap();
                (8, encoder.finish().unwrap())
            }
        };
        self.members.push(ZipMember {
            name: name.to_vec(),
            flags: 0,
            method,
            crc: crc32fast::hash(content),
            compressed: data.len() as u32,
            size: content.len() as u32,
            offset: None,
            data,
        });
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut directory = Vec::new();
        for member in &self.members {
            let offset = member.offset.unwrap_or(bytes.len() as u32);
            let mut common = Vec::new();
            for field in [20, member.flags, member.method, 0, 0] {
                common.extend_from_slice(&field.to_le_bytes());
            }
            for field in [member.crc, member.compressed, member.size] {
                common.extend_from_slice(&field.to_le_bytes());
            }
            common.extend_from_slice(&(member.name.len() as u16).to_le_bytes());
            common.extend_from_slice(&[0, 0]);
            bytes.extend_from_slice(b"PK\x03\x04");
            bytes.extend_from_slice(&common);
            bytes.extend_from_slice(&member.name);
            bytes.extend_from_slice(&member.data);
            directory.extend_from_slice(b"PK\x01\x02\x14\x00");
            directory.extend_from_slice(&common);
            directory.extend_from_slice(&[0; 10]);
            directory.extend_from_slice(&offset.to_le_bytes());
            directory.extend_from_slice(&member.name);
        }
        let start = bytes.len() as u32;
        let count = self.count.unwrap_or(self.members.len() as u16);
        bytes.extend_from_slice(&directory);
        bytes.extend_from_slice(b"PK\x05\x06\0\0\0\0");
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(&(directory.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&start.to_le_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes
    }
}
