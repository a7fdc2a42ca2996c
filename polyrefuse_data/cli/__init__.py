"""The `polyrefuse` command: parse options, call the library, format errors."""
