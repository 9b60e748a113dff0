"""What is deployed: bundles, runtimes, the extractor of features, calibration."""
