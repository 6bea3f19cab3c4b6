"""`python -m ocr_pipeline` is the command `ocr-pipeline`."""

from ocr_pipeline.cli import main

if __name__ == "__main__":
    main()
