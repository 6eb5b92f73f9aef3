"""From files to arrays: harmonization, masks, augmentation."""
