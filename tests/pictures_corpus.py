"""A corpus of small picture files: what writes each of them, and the pixels (12, 10, 3) uint8 that it holds, as text
tells them here, or what its refusal says."""

import io
import struct

import imagecodecs
import numpy as np
import tifffile
import zarr
from PIL import Image, ImageOps

SHAPE = (12, 10)
RGB = np.random.default_rng(0).integers(1, 256, (*SHAPE, 3)).astype(np.uint8)
OTHER = np.random.default_rng(1).integers(1, 256, (*SHAPE, 3)).astype(np.uint8)
GREY = RGB[..., 0]
AS_RGB = np.repeat(GREY[..., None], 3, -1)
PLANES = np.ascontiguousarray(np.moveaxis(RGB, -1, 0))
PALETTE = np.random.default_rng(2).integers(1, 256, (3, 256)).astype(np.uint8)
OF_PALETTE = np.moveaxis(PALETTE[:, GREY], 0, -1)
HALF = np.full((*SHAPE, 1), 200, np.uint8)
RGBA = np.concatenate([RGB, HALF], -1)
WIDE = (slice(None), slice(None, 8))


def tiff(path, pixels=RGB, **options):
    tifffile.imwrite(path, pixels, **{"photometric": "rgb", **options})


def pages(path, *images, **options):
    with tifffile.TiffWriter(path) as file:
        for image, more in images:
            file.write(image, **{"metadata": None, "photometric": "rgb", **options, **more})


def saved(path, image, **options):
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, path.suffix[1:], **options)


def turned(value):
    """A picture stored so that orientation `value` shows RGB, by Pillow's own turning of the inverse."""
    inverse = {6: 8, 8: 6}.get(value, value)
    exif = Image.Exif()
    exif[0x0112] = inverse
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "png", exif=exif)
    return np.asarray(ImageOps.exif_transpose(Image.open(buffer)))


def oriented(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def jpeg(pixels, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "jpeg", quality=95, **options)
    return buffer.getvalue()


def cut(path, content, share=0.6):
    path.write_bytes(content[: int(len(content) * share)])


def png(pixels, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png", **options)
    return buffer.getvalue()


def flipped(path, content, at):
    path.write_bytes(content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :])


def array(path, pixels=RGB, **options):
    zarr.create_array(path, data=pixels, **options)


def with_names(path, names):
    made = zarr.create_array(path, data=PLANES, zarr_format=2, chunks=(1, 5, 5))
    made.attrs["_ARRAY_DIMENSIONS"] = names


def multiscales(path, pixels=PLANES, axes="cyx", version=2):
    group = zarr.open_group(path, mode="w", zarr_format=version)
    group.create_array("0", data=pixels)
    scales = [{"axes": [{"name": name} for name in axes], "datasets": [{"path": "0"}]}]
    group.attrs.update({"multiscales": scales} if version == 2 else {"ome": {"multiscales": scales}})


def bioformats(path):
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.attrs["bioformats2raw.layout"] = 3
    multiscales(path / "0", PLANES[None, :, None], "tczyx")
    multiscales(path / "1", PLANES[::-1][None, :, None], "tczyx")


def broken_chunk(path):
    array(path, chunks=(6, 5, 3))
    (path / "c" / "1" / "1" / "0").write_bytes(b"broken")


def missing_chunk(path):
    array(path, chunks=(6, 10, 3))
    (path / "c" / "1" / "0" / "0").unlink()


UPPER = RGB * (np.arange(12) < 6)[:, None, None].astype(np.uint8)


def aperio(path):
    luma = np.asarray(Image.fromarray(SMOOTH).convert("YCbCr"))
    coded = imagecodecs.jpeg2k_encode(luma, codecformat="J2K", mct=False, reversible=True, level=0)
    about = {"shape": SMOOTH.shape, "dtype": np.uint8, "tile": (16, 16), "photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path) as file:
        file.write(iter([coded]), compression=33003, **about)


SMOOTH = np.stack(np.broadcast_arrays(100, 60 + np.arange(16), 120 + np.arange(16)[:, None]), -1).astype(np.uint8)


def lying(path, kind):
    header = struct.pack(">IIBBBBB", 12_000, 12_000, 8, 2, 0, 0, 0)
    content = png(RGB)
    if kind == "png":
        import zlib

        head = content[:8] + struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
        path.write_bytes(head + content[33:])
    elif kind == "npy":
        with path.open("wb") as file:
            shape = {"descr": "|u1", "fortran_order": False, "shape": (10**6, 10**6, 3)}
            np.lib.format.write_array_header_1_0(file, shape)
            file.write(bytes(100))
    else:
        side = {"shape": (2**16, 2**16, 3), "tile": (2**15, 2**16)}
        tifffile.imwrite(
            path, iter([b"\0"] * 2), **side, dtype=np.uint8, compression="zlib", photometric="rgb", bigtiff=True
        )


def blown_frame(path):
    """A tile of 16 pixels whose JPEG stream says that it has 60,000."""
    content = bytearray(jpeg(SMOOTH))
    at = content.find(b"\xff\xc0")
    content[at + 5 : at + 9] = struct.pack(">HH", 60_000, 60_000)
    about = {"shape": RGB.shape, "dtype": np.uint8, "tile": (16, 16), "photometric": "ycbcr"}
    tifffile.imwrite(path, iter([bytes(content)]), compression=7, subsampling=(2, 2), **about)


def short_tile(path):
    """A JPEG tile that is half as long as it was written."""
    tiff(path, tile=(16, 16), compression="jpeg")
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags[325].overwrite(file.pages[0].databytecounts[0] // 2)


def ome(path, pixels=PLANES, **more):
    tifffile.imwrite(path, pixels, photometric="minisblack", metadata={"axes": "CYX", **more})


# Pixels that every way of reading gives.
READ = {
    "rgb.png": (lambda path: saved(path, RGB), RGB),
    "rgb.bmp": (lambda path: saved(path, RGB), RGB),
    "grey.png": (lambda path: saved(path, GREY), AS_RGB),
    "palette.png": (lambda path: saved(path, indexed()), OF_PALETTE),
    "transparent.png": (lambda path: saved(path, indexed(), transparency=bytes([7] * 256)), OF_PALETTE),
    "rgba.png": (lambda path: saved(path, RGBA), RGB),
    "la.png": (lambda path: saved(path, np.stack([GREY, HALF[..., 0]], -1)), AS_RGB),
    "bit.png": (lambda path: saved(path, Image.fromarray(GREY > 99)), (AS_RGB > 99) * np.uint8(255)),
    "turned.jpeg": (
        lambda path: path.write_bytes(jpeg(SMOOTH[:10, :12], exif=oriented(6))),
        np.rot90(np.asarray(Image.open(io.BytesIO(jpeg(SMOOTH[:10, :12])))), -1),
    ),
    **{
        f"turned{value}.{ending}": (
            lambda path, value=value, ending=ending: (
                saved(path, turned(value), exif=oriented(value))
                if ending == "png"
                else tiff(path, turned(value), extratags=[(274, 3, 1, value, True)], rowsperstrip=5, compression="lzw")
            ),
            RGB,
        )
        for value in range(2, 9)
        for ending in ("png", "tif")
    },
    "grey.jpeg": (
        lambda path: path.write_bytes(jpeg(GREY)),
        np.asarray(Image.open(io.BytesIO(jpeg(GREY))).convert("RGB")),
    ),
    "flat.tif": (lambda path: tiff(path), RGB),
    "tiles.tif": (lambda path: tiff(path, tile=(16, 16), compression="zlib", predictor=True), RGB),
    "big.btf": (lambda path: tiff(path, bigtiff=True, byteorder=">", compression="lzw", rowsperstrip=5), RGB),
    "planes.tif": (lambda path: tiff(path, PLANES, planarconfig="separate"), RGB),
    "white.tif": (lambda path: tiff(path, 255 - GREY, photometric="miniswhite"), AS_RGB),
    "bool.tif": (lambda path: tifffile.imwrite(path, GREY > 99), (AS_RGB <= 99) * np.uint8(255)),
    "palette.tif": (
        lambda path: tiff(path, GREY, photometric="palette", colormap=PALETTE.astype(np.uint16) * 257),
        OF_PALETTE,
    ),
    "palette8.tif": (
        lambda path: tiff(path, GREY, photometric="palette", colormap=PALETTE.astype(np.uint16)),
        OF_PALETTE,
    ),
    "rgba.tif": (lambda path: tiff(path, RGBA, extrasamples=["unassalpha"]), RGB),
    "multiplied.tif": (lambda path: tiff(path, RGBA, extrasamples=["assocalpha"], tile=(16, 16)), RGB),
    "cyx.tif": (lambda path: ome(path), RGB),
    "cyx.ome.tif": (lambda path: ome(path), RGB),
    "imagej.tif": (lambda path: tifffile.imwrite(path, PLANES, imagej=True, metadata={"axes": "CYX"}), RGB),
    "pages.tif": (lambda path: pages(path, (RGB, {}), (OTHER, {})), RGB),
    "reduced.tif": (lambda path: pages(path, (OTHER[::2, ::2], {"subfiletype": 1}), (RGB, {})), RGB),
    "subifd.tif": (
        lambda path: pages(path, (RGB, {"subifds": 1}), (RGB[::2, ::2], {"subfiletype": 1})),
        RGB,
    ),
    "two.ome.tif": (lambda path: pages(path, (RGB, {}), (OTHER[:9], {}), metadata={"axes": "YXS"}), RGB),
    "rgb.npy": (lambda path: np.save(path, RGB), RGB),
    "grey.npy": (lambda path: np.save(path, GREY), AS_RGB),
    "fortran.npy": (lambda path: np.save(path, np.asfortranarray(RGB)), RGB),
    "two.zarr": (lambda path: array(path, zarr_format=2, chunks=(5, 4, 3)), RGB),
    "three.zarr": (lambda path: array(path, chunks=(5, 4, 1)), RGB),
    "missing.zarr": (missing_chunk, UPPER),
    "named.zarr": (lambda path: with_names(path, ["c", "y", "x"]), RGB),
    "dimensions.zarr": (lambda path: array(path, PLANES, dimension_names=["channel", "y", "x"]), RGB),
    "ome2.zarr": (lambda path: multiscales(path), RGB),
    "ome3.zarr": (lambda path: multiscales(path, PLANES[None, :, None], "tczyx", 3), RGB),
    "bioformats.zarr": (bioformats, RGB),
}


def indexed():
    image = Image.fromarray(GREY).copy()
    image.putpalette(PALETTE.T.tobytes())
    return image


# What every way of reading refuses, masks and `zoo tile` too.
REFUSED = {
    "cut.png": (lambda path: cut(path, png(RGB)), "broken or truncated"),
    "cut.jpeg": (lambda path: cut(path, jpeg(RGB)), "broken or truncated"),
    "flipped.png": (lambda path: flipped(path, png(RGB), 100), "broken or truncated"),
    "cut.tif": (lambda path: (tiff(path), cut(path, path.read_bytes())), "broken or truncated"),
    "cut.btf": (lambda path: (tiff(path, compression="lzw"), cut(path, path.read_bytes(), 0.9)), "broken or truncated"),
    "short.tif": (short_tile, "a frame without its end"),
    "cut.npy": (lambda path: (np.save(path, RGB), cut(path, path.read_bytes())), "broken or truncated"),
    "broken.zarr": (broken_chunk, "broken or truncated"),
    "lying.png": (lambda path: lying(path, "png"), "no file of this size holds"),
    "lying.npy": (lambda path: lying(path, "npy"), "broken or truncated"),
    "lying.tif": (lambda path: lying(path, "tiff"), ""),
    "frame.tif": (blown_frame, "a frame of 60000 x 60000"),
    "text.tif": (lambda path: path.write_text("hello"), "unknown format"),
    "cmyk.jpeg": (lambda path: saved(path, Image.fromarray(RGB).convert("CMYK")), "received CMYK"),
    "cmyk.tif": (lambda path: tiff(path, RGBA, photometric="separated"), "SEPARATED"),
    "lab.tif": (lambda path: tiff(path, photometric="cielab"), "CIELAB"),
    "ycbcr.tif": (lambda path: tiff(path, photometric="ycbcr", compression="zlib"), "YCBCR"),
    "time.ome.tif": (
        lambda path: tifffile.imwrite(path, PLANES, photometric="minisblack", metadata={"axes": "TYX"}),
        "axes T 3, Y 12, X 10",
    ),
    "depth.zarr": (lambda path: multiscales(path, np.stack([PLANES] * 2), "zcyx"), "z 2, c 3, y 12, x 10"),
    "complex.npy": (lambda path: np.save(path, RGB.astype(complex)), "complex128"),
    "nan.npy": (lambda path: np.save(path, np.where(RGB > 99, np.nan, RGB)), ""),
}
# What is refused to a model of three channels trained on uint8.
NOT_FOR_THE_MODEL = {
    "infrared.tif": (lambda path: tiff(path, RGBA, extrasamples=["unspecified"]), "none is tagged as alpha"),
    "bands.tif": (
        lambda path: tiff(path, RGBA, photometric="minisblack", planarconfig="contig"),
        "none is tagged as alpha",
    ),
    "rgba.npy": (lambda path: np.save(path, RGBA), "none is tagged as alpha"),
    "deep.png": (lambda path: path.write_bytes(imagecodecs.png_encode(RGB.astype(np.uint16) * 257)), "received uint16"),
    "deep.tif": (lambda path: tiff(path, RGB.astype(np.uint16) * 257), "received uint16"),
    "float.tif": (lambda path: tiff(path, RGB / np.float32(255)), "received float32"),
    "float.npy": (lambda path: np.save(path, RGB / 255), "received float32"),
    "signed.tif": (lambda path: tiff(path, RGB.astype(np.int16)), "int16"),
    "wide.tif": (lambda path: tiff(path, RGB.astype(np.uint32)), "32 bits"),
    "planes.npy": (lambda path: np.save(path, np.zeros((3, 12, 10), np.uint8)), "channels seem to come first"),
}
