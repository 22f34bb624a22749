"""Commands that look after this repository; they are no part of what is installed."""
