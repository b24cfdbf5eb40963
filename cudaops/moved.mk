# Objects name the headers they were made from by path. In a folder that was copied or moved, a changed header would
# make none of them again, and old objects beside new ones corrupt memory: so there all are made again. Wants $(out).

place := $(abspath $(dir $(lastword $(MAKEFILE_LIST))))
ifneq ($(place),$(shell cat $(out)/made-from 2>/dev/null))
$(shell mkdir -p $(out) && find $(out) -name '*.o' -delete && echo $(place) > $(out)/made-from)
endif
