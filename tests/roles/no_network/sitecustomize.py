"""Kills, by the kernel, any process started with this on its path that opens an internet socket.

A seccomp filter sees native code too, which no patch of Python's `socket` would.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

_SOCKET = {"x86_64": 41, "aarch64": 198}[platform.machine()]
_AF_INET, _AF_INET6 = 2, 10
_KILL, _ALLOW = 0x80000000, 0x7FFF0000  # SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_ALLOW
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF: load a word, jump if equal, return
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2
_NUMBER, _FIRST_ARGUMENT = 0, 16  # offsets in struct seccomp_data


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def _instruction(code: int, if_true: int, if_false: int, value: int) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


_program = b"".join((
    _instruction(_LOAD, 0, 0, _NUMBER),
    _instruction(_EQUAL, 0, 4, _SOCKET),
    _instruction(_LOAD, 0, 0, _FIRST_ARGUMENT),
    _instruction(_EQUAL, 1, 0, _AF_INET),
    _instruction(_EQUAL, 0, 1, _AF_INET6),
    _instruction(_RETURN, 0, 0, _KILL),
    _instruction(_RETURN, 0, 0, _ALLOW),
))  # fmt: skip

_libc = ctypes.CDLL(None, use_errno=True)
if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
if _libc.prctl(_PR_SET_SECCOMP, _FILTER, ctypes.byref(_Program(len(_program) // 8, _program)), 0, 0):
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
