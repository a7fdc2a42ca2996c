"""The `polyrefuse eval` commands: parse options, call the library, format errors."""
