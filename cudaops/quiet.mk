# What recipes say in place of their commands, which V=1 shows. Wants $(place) of moved.mk.

ifeq ($(V),)
quiet := @
compiling = @echo "  compile $(patsubst $(place)/%,%,$(abspath $<))"
linking = @echo "  link $(@F)"
endif
