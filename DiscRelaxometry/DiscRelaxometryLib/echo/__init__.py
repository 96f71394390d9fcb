"""Echo series: read from DICOM, NIfTI and NRRD files, with their times, and aligned."""
