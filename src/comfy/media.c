#include "media.h"

struct magic {
    const char *ending;
    unsigned at; /* where the bytes stand */
    struct slice bytes;
    struct slice also; /* at 8; empty: nothing */
};

#define BYTES(text)                                                                                \
    {                                                                                              \
        text, sizeof(text) - 1                                                                     \
    }
#define MAGIC(ending, at, text)                                                                    \
    {                                                                                              \
        ending, at, BYTES(text), BYTES("")                                                         \
    }

static const struct magic magics[] = {
    MAGIC("png", 0, "\x89PNG\r\n\x1a\n"),
    MAGIC("jpg", 0, "\xff\xd8\xff"),
    MAGIC("gif", 0, "GIF87a"),
    MAGIC("gif", 0, "GIF89a"),
    MAGIC("bmp", 0, "BM"),
    MAGIC("tiff", 0, "II*\0"),
    MAGIC("tiff", 0, "MM\0*"),
    {"webp", 0, BYTES("RIFF"), BYTES("WEBP")},
    {"wav", 0, BYTES("RIFF"), BYTES("WAVE")},
    {"avi", 0, BYTES("RIFF"), BYTES("AVI ")},
    {"avif", 4, BYTES("ftyp"), BYTES("avif")},
    {"heic", 4, BYTES("ftyp"), BYTES("heic")},
    {"mov", 4, BYTES("ftyp"), BYTES("qt  ")},
    {"m4a", 4, BYTES("ftyp"), BYTES("M4A ")},
    MAGIC("mp4", 4, "ftyp"),
    MAGIC("webm", 0, "\x1a\x45\xdf\xa3"),
    MAGIC("ogg", 0, "OggS"),
    MAGIC("flac", 0, "fLaC"),
    MAGIC("mp3", 0, "ID3"),
    MAGIC("mp3", 0, "\xff\xfb"),
};

static bool stands_at(struct slice bytes, size_t at, struct slice what)
{
    return bytes.len >= at + what.len && memcmp(bytes.ptr + at, what.ptr, what.len) == 0;
}

const char *media_ending(struct slice bytes)
{
    for (size_t i = 0; i < ARRAY_LEN(magics); i++)
        if (stands_at(bytes, magics[i].at, magics[i].bytes) && stands_at(bytes, 8, magics[i].also))
            return magics[i].ending;
    return NULL;
}
