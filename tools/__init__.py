"""Developer tools of this repository; run them through make."""
