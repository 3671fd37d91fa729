"""Windows: children in a job object that the system ends with its owner. Untested.

The kernel's only handle to the job closes when the kernel ends, however it ends, and
JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE then ends every process in it, grandchildren included.

Source: https://learn.microsoft.com/windows/win32/procthread/job-objects
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import ctypes
    import os
    import signal
    import subprocess
    from collections.abc import Mapping, Sequence
    from ctypes import wintypes
    from pathlib import Path

    _EXTENDED_LIMIT_INFORMATION = 9
    _KILL_ON_JOB_CLOSE = 0x2000
    _CREATE_SUSPENDED = 0x4

    class _BasicLimits(ctypes.Structure):
        _fields_ = (
            ("PerProcessUserTimeLimit", wintypes.LARGE_INTEGER),
            ("PerJobUserTimeLimit", wintypes.LARGE_INTEGER),
            ("LimitFlags", wintypes.DWORD),
            ("MinimumWorkingSetSize", ctypes.c_size_t),
            ("MaximumWorkingSetSize", ctypes.c_size_t),
            ("ActiveProcessLimit", wintypes.DWORD),
            ("Affinity", ctypes.c_size_t),
            ("PriorityClass", wintypes.DWORD),
            ("SchedulingClass", wintypes.DWORD),
        )

    class _ExtendedLimits(ctypes.Structure):
        _fields_ = (
            ("BasicLimitInformation", _BasicLimits),
            ("IoInfo", ctypes.c_uint64 * 6),
            ("ProcessMemoryLimit", ctypes.c_size_t),
            ("JobMemoryLimit", ctypes.c_size_t),
            ("PeakProcessMemoryUsed", ctypes.c_size_t),
            ("PeakJobMemoryUsed", ctypes.c_size_t),
        )

    def _kernel32() -> ctypes.WinDLL:
        dll = ctypes.WinDLL("kernel32", use_last_error=True)
        dll.CreateJobObjectW.restype = wintypes.HANDLE
        dll.CreateJobObjectW.argtypes = (ctypes.c_void_p, wintypes.LPCWSTR)
        dll.SetInformationJobObject.argtypes = (
            wintypes.HANDLE,
            ctypes.c_int,
            ctypes.c_void_p,
            wintypes.DWORD,
        )
        dll.AssignProcessToJobObject.argtypes = (wintypes.HANDLE, wintypes.HANDLE)
        dll.TerminateJobObject.argtypes = (wintypes.HANDLE, wintypes.UINT)
        dll.CloseHandle.argtypes = (wintypes.HANDLE,)
        return dll

    def _check(result: int) -> None:
        if not result:
            raise ctypes.WinError(ctypes.get_last_error())

    class Job:
        """A kill-on-close job object; the group of one child."""

        def __init__(self) -> None:
            self._dll = _kernel32()
            self._handle = self._dll.CreateJobObjectW(None, None)
            _check(self._handle)
            limits = _ExtendedLimits()
            limits.BasicLimitInformation.LimitFlags = _KILL_ON_JOB_CLOSE
            _check(
                self._dll.SetInformationJobObject(
                    self._handle,
                    _EXTENDED_LIMIT_INFORMATION,
                    ctypes.byref(limits),
                    ctypes.sizeof(limits),
                )
            )
            self._pid = 0

        def assign(self, popen: subprocess.Popen[bytes]) -> None:
            """Put a process, and all that it will start, into the job."""
            self._pid = popen.pid
            handle = popen._handle  # type: ignore[attr-defined]  # noqa: SLF001  has no public name
            _check(self._dll.AssignProcessToJobObject(self._handle, int(handle)))

        def terminate(self) -> None:
            """Ask the child to end: Ctrl-Break, which it can handle."""
            try:
                os.kill(self._pid, signal.CTRL_BREAK_EVENT)
            except OSError:
                self.kill()  # without a console there is no polite way

        def kill(self) -> None:
            """End every process in the job at once."""
            if self._handle:
                self._dll.TerminateJobObject(self._handle, 1)

        def close(self) -> None:
            """Close the job, which ends what is still in it; idempotent."""
            handle, self._handle = self._handle, None
            if handle:
                self._dll.CloseHandle(handle)

    def spawn(
        argv: Sequence[str], env: Mapping[str, str], cwd: Path | None, output: int
    ) -> tuple[subprocess.Popen[bytes], Job]:
        """Start a program in a job of its own; suspended until it is in, so that none escapes."""
        import psutil

        job = Job()
        try:
            popen = subprocess.Popen(
                argv,
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                creationflags=subprocess.CREATE_NEW_PROCESS_GROUP
                | subprocess.CREATE_NO_WINDOW
                | _CREATE_SUSPENDED,
            )
            try:
                job.assign(popen)
                psutil.Process(popen.pid).resume()
            except BaseException:
                popen.kill()
                popen.wait(5)
                raise
        except BaseException:
            job.close()
            raise
        return popen, job
