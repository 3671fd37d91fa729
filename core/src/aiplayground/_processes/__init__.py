"""Child processes that never outlive the kernel: trees, guard, ledger, ports."""
