package main

// A pin is the SHA-256 of libonnxruntime.so as one source ships it. Sources build their own binaries, so that the same
// version has several.
type pin struct {
	version string
	arch    string // as runtime.GOARCH
	source  string // pip or npm
	sum     string
}

// To move to a version, add its sums here: download it with the commands in sources.go, take the library out of the
// archive and run sha256sum.
var knownPins = pinTable{
	{"1.30.0", "amd64", "pip", "c902c70b3003c0e99fada202f37478c515ae9bba7944c2b2abd0017bae0c82ed"},
	{"1.30.0", "amd64", "npm", "ffb75a925ba05e47b235bb66e3e3911714a80b328a9c9425539feb204aa32a23"},
	{"1.30.0", "arm64", "pip", "8a218e1e446880131115c368ec7005969a5022af9a15a26173de648fef0b7789"},
	{"1.30.0", "arm64", "npm", "1f549d46250b005580b597f4164984aaf75b3bcb9f3aeb07c7f8a8fe60b23c76"},
	{"1.24.4", "amd64", "pip", "2d518e11c7767f9fdc4413bdbeb45acf30db504ff76a82fc19d9238a3f9f6c24"},
	{"1.26.0", "amd64", "pip", "50775d390eb55e7abd9f6d734da103a04f0e5342ef0a76b1c6ec795544439295"},
	{"1.28.0", "amd64", "pip", "aa4079d18f4ea7a5f3a94d80cd4bbe0f2740436626622d64d793803a20381083"},
	{"1.32.0", "amd64", "pip", "6c1585d1bbf45b0712ea4a21b705c5fcb4ba04ff2e30f1fbf81a49faf658638f"},
}

type pinTable []pin

// accepts finds the pin that a sum of a version satisfies, whatever source it came from.
func (t pinTable) accepts(version, arch, sum string) (source string, ok bool) {
	for _, p := range t {
		if p.version == version && p.arch == arch && p.sum == sum {
			return p.source, true
		}
	}
	return "", false
}

// covers tells whether a source's build of a version is known at all.
func (t pinTable) covers(version, arch, source string) bool {
	for _, p := range t {
		if p.version == version && p.arch == arch && p.source == source {
			return true
		}
	}
	return false
}
