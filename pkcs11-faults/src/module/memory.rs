//! The callers' memory: the few places where it is read or written other than by the real module.
#![allow(unsafe_code)]

use cryptoki_sys::{CK_BYTE, CK_ULONG};

use crate::rv::Rv;

/// Writes a value to where the caller wants it.
///
/// # Safety
/// `to` is null, or valid for the write.
pub(super) unsafe fn write<T>(to: *mut T, value: T) -> Result<(), Rv> {
    if to.is_null() {
        return Err(Rv::ARGUMENTS_BAD);
    }
    // SAFETY: the caller of this function says so, and it is not null.
    unsafe { to.write(value) };
    Ok(())
}

/// Reads a value of the caller's.
///
/// # Safety
/// `from` is null, or valid for the read.
pub(super) unsafe fn read<T: Copy>(from: *const T) -> Result<T, Rv> {
    // SAFETY: the caller of this function says so.
    unsafe { from.as_ref() }.copied().ok_or(Rv::ARGUMENTS_BAD)
}

/// The caller's bytes; none if the pointer is null.
///
/// # Safety
/// `start` is null, or valid for reading `length` bytes for as long as the caller of this function uses them.
pub(super) unsafe fn bytes<'a>(start: *const CK_BYTE, length: CK_ULONG) -> Option<&'a [u8]> {
    if start.is_null() {
        return None;
    }
    // SAFETY: the caller of this function says so, and it is not null.
    Some(unsafe { std::slice::from_raw_parts(start, length as usize) })
}

/// The caller's items, to be changed; none if the pointer is null.
///
/// # Safety
/// `start` is null, or valid for reading and writing `count` items, by nobody else, for as long as the caller of this function uses them.
pub(super) unsafe fn items_mut<'a, T>(start: *mut T, count: CK_ULONG) -> &'a mut [T] {
    if start.is_null() {
        return &mut [];
    }
    // SAFETY: the caller of this function says so, and it is not null.
    unsafe { std::slice::from_raw_parts_mut(start, count as usize) }
}

/// Hands a list to the caller in the way of PKCS#11: the count only, if there is no room given; `CKR_BUFFER_TOO_SMALL`, if it is too little.
///
/// # Safety
/// `count` is null, or valid for reading and writing; `list` is null, or valid for writing as many items as `count` says.
pub(super) unsafe fn write_list<T: Copy>(values: &[T], list: *mut T, count: *mut CK_ULONG) -> Rv {
    // SAFETY: the caller of this function says so.
    let Ok(room) = (unsafe { read(count) }) else { return Rv::ARGUMENTS_BAD };
    // SAFETY: it was read just before.
    unsafe { count.write(values.len() as CK_ULONG) };
    if list.is_null() {
        return Rv::OK;
    }
    if (room as usize) < values.len() {
        return Rv::BUFFER_TOO_SMALL;
    }
    // SAFETY: there is room for as many as `room`, and the caller's memory is not ours.
    unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), list, values.len()) };
    Rv::OK
}

/// A buffer of the caller's for a signature.
#[derive(Debug)]
pub(super) struct Output {
    start: *mut CK_BYTE,
    length: *mut CK_ULONG,
}

impl Output {
    /// # Safety
    /// Until the value is dropped, `length` is null or valid for reading, and `start` is null or valid for reading and writing as many bytes
    /// as `length` says after the real module has answered `CKR_OK`.
    pub(super) const unsafe fn new(start: *mut CK_BYTE, length: *mut CK_ULONG) -> Self {
        Self { start, length }
    }

    /// Whether the caller only asks how long the output will be.
    pub(super) const fn is_length_query(&self) -> bool {
        self.start.is_null()
    }

    /// Flips one bit in the middle. Only to be called after the real module has answered `CKR_OK`.
    pub(super) fn flip_bit(&self) {
        // SAFETY: `new`'s caller says so.
        let length = unsafe { read(self.length) }.unwrap_or(0);
        // SAFETY: `new`'s caller says so.
        if let Some(byte) = unsafe { items_mut(self.start, length) }.get_mut(length as usize / 2) {
            *byte ^= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_counted_refused_or_written() {
        let mut room = [0_u64; 3];
        let mut count = 0;
        // SAFETY: the pointers are to live variables, and `count` never says more than there is room.
        unsafe {
            assert_eq!(write_list(&[7, 8], std::ptr::null_mut(), &raw mut count), Rv::OK);
            assert_eq!(count, 2);
            count = 1;
            assert_eq!(write_list(&[7, 8], room.as_mut_ptr(), &raw mut count), Rv::BUFFER_TOO_SMALL);
            assert_eq!((count, room), (2, [0; 3]));
            count = 3;
            assert_eq!(write_list(&[7, 8], room.as_mut_ptr(), &raw mut count), Rv::OK);
            assert_eq!((count, room), (2, [7, 8, 0]));
            assert_eq!(write_list(&[7], room.as_mut_ptr(), std::ptr::null_mut()), Rv::ARGUMENTS_BAD);
        }
    }

    #[test]
    fn one_bit_of_an_output_is_flipped_and_none_of_a_missing_one() {
        let mut signature = [0_u8; 4];
        let mut length = 4;
        // SAFETY: the pointers are to live variables that outlive the values.
        unsafe {
            Output::new(signature.as_mut_ptr(), &raw mut length).flip_bit();
            Output::new(std::ptr::null_mut(), &raw mut length).flip_bit();
        }
        assert_eq!(signature, [0, 0, 1, 0]);
    }
}
